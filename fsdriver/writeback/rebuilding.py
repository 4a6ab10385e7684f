"""``fsdriver fsck``: a catalog that is damaged or gone is made again from what can be read of it, and from the staging files.

Rows that neither tells are lost: removals, renames and new directories that no store had yet. The store then shows the names
as they were before; no bytes are lost with them.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fsdriver.errors import ConfigError
from fsdriver.writeback import intents
from fsdriver.writeback.catalog import SCHEMA_VERSION, CatalogLock
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import INTERRUPTED, UNKNOWN

log = logging.getLogger(__name__)

TABLES: Final = {
    "pending": ("store", "key"),
    "attributes": ("store", "root", "directory", "name"),
    "uploads": ("store", "key", "handle"),
    "sent": ("staging", "key"),
}
"""With their keys, by which rows are read from both ends of a table of which a part is damaged."""


@dataclass
class Findings:
    """What was wrong, and what was done about it.

    Attributes
    ----------
    problems : list of str
        One sentence each.
    repairs : list of str
    lost : list of str
        Files whose bytes are gone for good.
    rows : int
        Rows that the catalog has in the end.
    """

    problems: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    rows: int = 0


def check(state: Path, staging: Path, *, repair: bool) -> Findings:
    """Check the catalog of a state directory, and repair it.

    Parameters
    ----------
    state, staging : Path
        The state directory, and the staging directory beside the cache.
    repair : bool
        False: change nothing.

    Raises
    ------
    ConfigError
        A process has it open, or a newer program wrote it.
    """
    path = state / "catalog.db"
    with CatalogLock(path).exclusively():
        found = Findings()
        if not path.exists() and not _intents(staging):
            return found  # nothing was ever written
        damage = _damage(path)
        if damage:
            found.problems.append(f"{path}: {damage}")
        salvaged: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {}
        if damage and path.exists():
            salvaged = {table: _salvage(path, table) for table in TABLES}
            if repair:
                found.repairs.append(f"the damaged catalog is kept as {_put_aside(path)}")
        if damage and not repair:
            return found
        journal = Journal(path, locked=True)
        try:
            _put_back(journal, salvaged, found)
            _check_rows(journal, found, repair=repair)
            _adopt(journal, staging, found, damaged=bool(damage), repair=repair)
            found.rows = int(journal.rows("SELECT count(*) FROM pending")[0][0])
            if repair:
                journal.make_durable()
        finally:
            journal.close()
        return found


def _damage(path: Path) -> str:
    """What is wrong with the database; "" if nothing."""
    if not path.exists():
        return "there is no catalog"
    try:
        with closing(sqlite3.connect(path, timeout=30)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"catalog has schema {version}, known is {SCHEMA_VERSION}; upgrade fsdriver", str(path)
                )
            said = [row[0] for row in db.execute("PRAGMA integrity_check(5)")]
            present = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    except sqlite3.DatabaseError as error:
        return f"it cannot be read: {error}"
    if said != ["ok"]:
        return "; ".join(said)
    if version and (missing := TABLES.keys() - present):
        return f"tables are missing: {', '.join(sorted(missing))}"
    return ""


def _salvage(path: Path, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns of a table, and the rows that can be read: from its beginning, and from its end backwards."""
    with tempfile.TemporaryDirectory(prefix="fsdriver-fsck-") as folder:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{folder}/copy{suffix}")
        rows: dict[tuple[Any, ...], None] = {}
        columns: list[str] = []
        try:
            with closing(sqlite3.connect(f"{folder}/copy", isolation_level=None)) as db:
                db.text_factory = bytes
                for order in ("ASC", "DESC"):
                    keys = ", ".join(f"{name} {order}" for name in TABLES[table])
                    with suppress(sqlite3.DatabaseError):
                        cursor = db.execute(f"SELECT * FROM {table} ORDER BY {keys}")
                        columns = [one[0] for one in cursor.description]
                        for row in cursor:
                            rows[row] = None
        except sqlite3.DatabaseError as error:
            log.info("%s: %s cannot be read: %s", path, table, error)
    decoded = []
    for row in rows:
        with suppress(UnicodeDecodeError):
            decoded.append(tuple(value.decode() if isinstance(value, bytes) else value for value in row))
    return columns, decoded


def _put_aside(path: Path) -> Path:
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{target}{suffix}")
    return target


def _put_back(journal: Journal, salvaged: dict[str, tuple[list[str], list[tuple[Any, ...]]]], found: Findings) -> None:
    for table, (columns, rows) in salvaged.items():
        count = 0
        for row in rows:
            places = ", ".join("?" * len(columns))
            with suppress(sqlite3.Error):  # values that no such row has: it was damaged
                journal.change(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})", row)
                count += 1
        if count:
            found.repairs.append(f"{count:,} rows of the table {table!r} could be read, and are kept")


def _check_rows(journal: Journal, found: Findings, *, repair: bool) -> None:
    """Rows that name staging files which are not there."""
    for store, key, path, staging in journal.rows("SELECT store, key, path, staging FROM pending"):
        if staging is None or os.path.exists(staging):
            continue
        text = f"{path} ({store}): the bytes that were to be uploaded are gone: {staging} is not there"
        found.problems.append(text)
        found.lost.append(path)
        if repair:
            journal.forget(store, key)
            found.repairs.append(f"{path}: nothing is owed for it any more; it is what the store has of it")


def _adopt(journal: Journal, staging: Path, found: Findings, *, damaged: bool, repair: bool) -> None:
    """Staging files that say what is owed from them, and that no row names."""
    best: dict[tuple[str, str], intents.Intent] = {}
    for intent in _intents(staging):
        row = intent.row
        assert row.staging is not None
        if journal.uses(row.staging):
            continue
        if intent.owner == journal.owner and not damaged:
            continue  # the catalog is whole, and knows that it was sent
        if intents.is_alive(intent, journal.path):
            continue
        known = best.get((row.store, row.key))
        if known is None or (known.row.held, -known.row.seq) > (row.held, -row.seq):
            best[row.store, row.key] = intent
    for (store, key), intent in sorted(best.items()):
        row = intent.row
        if journal.get(store, key) is not None:
            continue
        found.problems.append(f"{row.path} ({store}): {row.staging} was acknowledged, and no row says so")
        if repair:
            journal.write(replace(row, held=False, base=None if row.base == UNKNOWN else row.base))
            # It may be on the store already: that was written down in the catalog alone.
            journal.change("UPDATE pending SET error=? WHERE store=? AND key=?", (INTERRUPTED, store, key))
            found.repairs.append(f"{row.path}: its {row.size:,} bytes are owed to the store again")


def _intents(staging: Path) -> list[intents.Intent]:
    """What all staging files say."""
    paths = sorted(entry.path for entry in os.scandir(staging)) if staging.is_dir() else []
    return [intent for path in paths if (intent := intents.read(path)) is not None]
