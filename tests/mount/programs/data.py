"""Programs that keep data in one file and change it in place: sqlite, numpy, HDF5, parquet."""

from __future__ import annotations

from pathlib import Path

from .running import Program, call, script

TRANSACTIONS = 1000


def sqlite_delete(root: Path, material: Path) -> list[str]:
    """The rollback journal is made and removed with each of 1,000 transactions."""
    return _sqlite(root, "DELETE")


def sqlite_wal(root: Path, material: Path) -> list[str]:
    """The write-ahead log is shared by two processes through shared memory."""
    return _sqlite(root, "WAL")


def _sqlite(root: Path, mode: str) -> list[str]:
    told = script("sqlite_transactions.py", mode, TRANSACTIONS, cwd=root)
    return [
        told,
        call("sqlite3", "test.db", "pragma integrity_check; select count(*), sum(amount) from account;", cwd=root),
    ]


def arrays(root: Path, material: Path) -> list[str]:
    """Arrays mapped for reading and writing, HDF5 changed in place, parquet written and read in part."""
    return [script("arrays.py", cwd=root)]


PROGRAMS = [
    Program(sqlite_delete),
    Program(sqlite_wal, through=True, libfuse=True),
    Program(arrays, varying=("*.h5",), through=True),
]
