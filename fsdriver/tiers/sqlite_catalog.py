"""The catalog of one host: ``tiers.db``, SQLite (WAL) in the state directory, shared by all processes of a uid.

Nothing in it is the only record of anything, so it is not synced with every change: after a power failure it may be some seconds
old, and what the tiers list corrects it.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fsdriver.cache.heat import Uses
from fsdriver.errors import BackendError, ConfigError
from fsdriver.tiers.catalog import Catalog, Holdings
from fsdriver.tiers.order import blob, end_of, parent_of, text
from fsdriver.tiers.records import Copy, CopyState, Move, Record

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
BUSY_SECONDS: Final = 30.0
PAGE: Final = 1000
"""Rows that are read at a time."""
ASKED_AT_ONCE: Final = 500
"""Keys in one statement."""

_SCHEMA: Final = (
    "CREATE TABLE stacks (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE)",
    """CREATE TABLE objects (
        stack INTEGER NOT NULL, key BLOB NOT NULL, parent BLOB NOT NULL, version TEXT NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, copies TEXT NOT NULL, sha256 BLOB,
        first REAL NOT NULL, last REAL NOT NULL, uses INTEGER NOT NULL, pin TEXT, serial INTEGER NOT NULL, owes INTEGER NOT NULL,
        PRIMARY KEY (stack, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX objects_parent ON objects (stack, parent)",
    "CREATE INDEX objects_owing ON objects (stack) WHERE owes",
    """CREATE TABLE holdings (
        stack INTEGER NOT NULL, tier TEXT NOT NULL, objects INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (stack, tier)
    ) WITHOUT ROWID""",
    """CREATE TABLE moves (
        number INTEGER PRIMARY KEY, stack INTEGER NOT NULL, key BLOB NOT NULL, version TEXT NOT NULL, target TEXT NOT NULL,
        leaves TEXT NOT NULL, reason TEXT NOT NULL, size INTEGER NOT NULL, failures INTEGER NOT NULL, not_before REAL NOT NULL,
        error TEXT NOT NULL, owner TEXT NOT NULL, UNIQUE (stack, key, version, target)
    )""",
)
_COLUMNS: Final = "key, version, size, mtime_ns, copies, sha256, first, last, uses, pin, serial"
_IS_MOVE: Final = "stack=? AND key=? AND version=? AND target=?"
_MOVE_COLUMNS: Final = "key, version, target, leaves, reason, size, number, failures, not_before, error"


class SqliteCatalog(Catalog):
    """See the module. Safe in any thread.

    Parameters
    ----------
    path : Path
        The database; made if it is missing, and made anew (with what is in the way moved aside) if it is damaged.

    Raises
    ------
    ConfigError
        It is of a newer version of this program, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._stacks: dict[str, int] = {}
        try:
            self._connection = self._open()
        except sqlite3.OperationalError as error:
            raise ConfigError(f"the catalog of tiers cannot be opened: {error}", str(path)) from error
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            log.warning(
                "%s is damaged (%s): it is made anew from the tiers; what was there is %s", path, error, aside.name
            )
            for suffix in ("", "-wal", "-shm"):
                if (old := Path(f"{path}{suffix}")).exists():
                    old.rename(f"{aside}{suffix}")
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except OSError as error:
            raise ConfigError(f"the catalog of tiers cannot be opened: {error}", str(self.path)) from error
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"the catalog of tiers has schema {version}, this program knows {SCHEMA_VERSION}: use the newer program",
                    str(self.path),
                )
            if version == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        finally:
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise BackendError(f"the catalog of tiers cannot be used: {error}", str(self.path)) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(statement, values).fetchall()

    def _number(self, stack: str) -> int:
        number = self._stacks.get(stack)
        if number is None:
            with self._connected() as connection:
                connection.execute("INSERT OR IGNORE INTO stacks (identity) VALUES (?)", (stack,))
                (number,) = connection.execute("SELECT id FROM stacks WHERE identity=?", (stack,)).fetchone()
            self._stacks[stack] = number
        return number

    # -- records -------------------------------------------------------------------------------------------------------

    async def get(self, stack: str, key: str) -> Record | None:
        rows = self._rows(f"SELECT {_COLUMNS} FROM objects WHERE stack=? AND key=?", self._number(stack), blob(key))
        return _record(rows[0]) if rows else None

    async def get_many(self, stack: str, keys: Sequence[str]) -> dict[str, Record]:
        number, found = self._number(stack), {}
        for at in range(0, len(keys), ASKED_AT_ONCE):
            some = [blob(key) for key in keys[at : at + ASKED_AT_ONCE]]
            marks = ",".join("?" * len(some))
            for row in self._rows(f"SELECT {_COLUMNS} FROM objects WHERE stack=? AND key IN ({marks})", number, *some):
                record = _record(row)
                found[record.key] = record
        return found

    async def swap(
        self, stack: str, record: Record, serial: int, moves: Sequence[Move] = (), done: Move | None = None
    ) -> Record | None:
        number, key = self._number(stack), blob(record.key)
        with self._transaction() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM objects WHERE stack=? AND key=?", (number, key)
            ).fetchone()
            before = None if row is None else _record(row)
            if (before.serial if before else 0) != serial:
                return None
            made = replace(record, serial=max(serial + 1, time.time_ns()), uses=before.uses if before else record.uses)
            if record.removed and not record.copies:
                connection.execute("DELETE FROM objects WHERE stack=? AND key=?", (number, key))
            else:
                self._store(connection, "REPLACE", number, made)
            self._account(connection, number, [(before, made)])
            self._owe(connection, number, moves)
            if done is not None:
                connection.execute(f"DELETE FROM moves WHERE {_IS_MOVE}", _names(number, done))
        return made

    async def adopt(self, stack: str, records: Sequence[Record]) -> None:
        number, serial = self._number(stack), time.time_ns()
        with self._transaction() as connection:
            new = [
                (None, made)
                for made in (replace(record, serial=serial) for record in records)
                if self._store(connection, "IGNORE", number, made)
            ]
            self._account(connection, number, new)

    @staticmethod
    def _store(connection: sqlite3.Connection, otherwise: str, number: int, record: Record) -> bool:
        key = blob(record.key)
        uses = record.uses
        return connection.execute(
            f"INSERT OR {otherwise} INTO objects (stack, parent, {_COLUMNS}, owes) VALUES ({','.join('?' * 14)})",
            (
                number, parent_of(key), key, record.version, record.size, record.mtime_ns, _dump(record.copies), record.sha256,
                uses.first, uses.last, uses.count, record.pin, record.serial, bool(record.owed()),
            ),
        ).rowcount == 1  # fmt: skip

    @staticmethod
    def _account(connection: sqlite3.Connection, number: int, changes: Sequence[tuple[Record | None, Record]]) -> None:
        """Keep the holdings up to date with records that took the place of others."""
        sums: dict[str, list[int]] = {}
        for before, after in changes:
            for record, sign in ((before, -1), (after, 1)):
                for tier in record.holders() if record is not None else ():
                    held = sums.setdefault(tier, [0, 0])
                    held[0] += sign
                    held[1] += sign * (record.size if record is not None else 0)
        connection.executemany(
            "INSERT INTO holdings VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET objects=objects+?3, bytes=bytes+?4",
            [(number, tier, *held) for tier, held in sums.items() if any(held)],
        )

    async def of_directory(self, stack: str, directory: str) -> AsyncGenerator[Record]:
        number, parent, after = self._number(stack), blob(directory), b""
        while True:
            rows = self._rows(
                f"SELECT {_COLUMNS} FROM objects WHERE stack=? AND parent=? AND key>? ORDER BY key LIMIT {PAGE}",
                number, parent, after,
            )  # fmt: skip
            for row in rows:
                yield _record(row)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    async def below(self, stack: str, prefix: str, after: str = "") -> AsyncGenerator[Record]:
        number, start = self._number(stack), blob(prefix)
        # One bound on each side: SQLite would look for one of two, and read all rows up to the other.
        least, last = (">", blob(after)) if after and blob(after) >= start else (">=", start)
        end = end_of(start)
        most, ends = ("", ()) if end is None else (" AND key<?", (end,))
        while True:
            rows = self._rows(
                f"SELECT {_COLUMNS} FROM objects WHERE stack=? AND key{least}?{most} ORDER BY key LIMIT {PAGE}",
                number, last, *ends,
            )  # fmt: skip
            for row in rows:
                yield _record(row)
            if len(rows) < PAGE:
                return
            least, last = ">", rows[-1][0]

    async def note_uses(self, stack: str, uses: Mapping[str, tuple[int, float]]) -> None:
        number = self._number(stack)
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE objects SET uses=uses+?1, last=max(last, ?2), first=CASE WHEN uses=0 THEN ?2 ELSE first END"
                " WHERE stack=?3 AND key=?4",
                [(count, last, number, blob(key)) for key, (count, last) in uses.items()],
            )

    async def holdings(self, stack: str) -> dict[str, Holdings]:
        rows = self._rows("SELECT tier, objects, bytes FROM holdings WHERE stack=?", self._number(stack))
        return {tier: Holdings(objects, size) for tier, objects, size in rows}

    async def forget(self, stack: str) -> None:
        number = self._number(stack)
        with self._transaction() as connection:
            for table in ("objects", "holdings", "moves"):
                connection.execute(f"DELETE FROM {table} WHERE stack=?", (number,))

    async def owing_removals(self, stack: str) -> AsyncGenerator[Record]:
        number, after = self._number(stack), b""
        while True:
            rows = self._rows(
                f"SELECT {_COLUMNS} FROM objects WHERE stack=? AND owes AND key>? ORDER BY key LIMIT {PAGE}",
                number,
                after,
            )
            for row in rows:
                yield _record(row)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    # -- moves ---------------------------------------------------------------------------------------------------------

    async def owe(self, stack: str, moves: Sequence[Move]) -> int:
        number = self._number(stack)
        with self._transaction() as connection:
            return self._owe(connection, number, moves)

    @staticmethod
    def _owe(connection: sqlite3.Connection, number: int, moves: Sequence[Move]) -> int:
        return sum(
            connection.execute(
                "INSERT OR IGNORE INTO moves (stack, key, version, target, leaves, reason, size, failures, not_before,"
                " error, owner) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, '', '')",
                (
                    number, blob(move.key), move.version, move.target, json.dumps(move.leaves), move.reason, move.size,
                    move.not_before,
                ),
            ).rowcount
            for move in moves
        )  # fmt: skip

    async def claim_moves(self, stack: str, owner: str, now: float, limit: int) -> list[Move]:
        """See `Catalog`. Only who holds the stack's lock on this host claims, so what another owner has claimed is abandoned."""
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {_MOVE_COLUMNS} FROM moves WHERE stack=? AND owner<>? AND not_before<=? ORDER BY number LIMIT ?",
                (self._number(stack), owner, now, limit),
            ).fetchall()
            connection.executemany("UPDATE moves SET owner=? WHERE number=?", [(owner, row[6]) for row in rows])
        return [_move(row) for row in rows]

    async def end_move(self, stack: str, move: Move) -> None:
        with self._connected() as connection:
            connection.execute(f"DELETE FROM moves WHERE {_IS_MOVE}", _names(self._number(stack), move))

    async def fail_move(self, stack: str, move: Move) -> None:
        with self._connected() as connection:
            connection.execute(
                f"UPDATE moves SET owner='', failures=?, not_before=?, error=? WHERE {_IS_MOVE}",
                (move.failures, move.not_before, move.error, *_names(self._number(stack), move)),
            )

    async def moves(self, stack: str, key: str | None = None) -> AsyncGenerator[Move]:
        number, after = self._number(stack), 0
        while True:
            rows = self._rows(
                f"SELECT {_MOVE_COLUMNS} FROM moves WHERE stack=?1 AND number>?2 AND (?3 IS NULL OR key=?3)"
                f" ORDER BY number LIMIT {PAGE}",
                number, after, None if key is None else blob(key),
            )  # fmt: skip
            for row in rows:
                yield _move(row)
            if len(rows) < PAGE:
                return
            after = rows[-1][6]

    async def close(self) -> None:
        with self._connected() as connection:
            connection.close()


def _dump(copies: Mapping[str, Copy]) -> str:
    return json.dumps({tier: (copy.version, copy.state, copy.checked) for tier, copy in copies.items()})


def _record(row: tuple[Any, ...]) -> Record:
    key, version, size, mtime_ns, copies, sha256, first, last, uses, pin, serial = row
    return Record(
        text(key), version, size, mtime_ns,
        {tier: Copy(own, CopyState(state), checked) for tier, (own, state, checked) in json.loads(copies).items()},
        sha256, Uses(first, last, uses), pin, serial,
    )  # fmt: skip


def _names(number: int, move: Move) -> tuple[int, bytes, str, str]:
    return number, blob(move.key), move.version, move.target


def _move(row: tuple[Any, ...]) -> Move:
    key, version, target, leaves, *rest = row
    return Move(text(key), version, target, tuple(json.loads(leaves)), *rest)
