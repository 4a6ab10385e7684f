"""What is known of each item: its bytes' version, its uses, its metadata. SQLite (WAL), shared by processes."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fsdriver.cache.heat import DAY, Uses
from fsdriver.errors import ConfigError

_log = logging.getLogger(__name__)

SCHEMA: Final = 1
_CREATE: Final = """
CREATE TABLE IF NOT EXISTS items (
    key TEXT PRIMARY KEY, version TEXT NOT NULL, size INTEGER NOT NULL, added REAL NOT NULL,
    first REAL NOT NULL, last REAL NOT NULL, count INTEGER NOT NULL, metadata TEXT
) WITHOUT ROWID;
"""
_BATCH: Final = 256
"""Uses that are noted in one transaction."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item on disk.

    Attributes
    ----------
    key : str
    version : str
        SHA-256 of the content, in hexadecimal.
    size : int
        Bytes.
    added : float
        Seconds since the epoch.
    uses : Uses
        In the same seconds.
    metadata : mapping or None
    """

    key: str
    version: str
    size: int
    added: float
    uses: Uses
    metadata: Mapping[str, Any] | None

    def worth(self, now: float) -> float:
        """What decides which items leave the disk first ("heat" of ipfs_kit_py's DiskCache); larger stays longer."""
        idle, age = max(0.0, now - self.uses.last), max(0.0, now - self.added)
        return self.uses.count / (1.0 + idle / DAY) / math.sqrt(1.0 + age / DAY)


class Items:
    """The table. Thread-safe; uses are written in batches, so that a hit writes nothing.

    Parameters
    ----------
    path : Path
        The database; made when missing, made anew when it is not one.

    Raises
    ------
    ConfigError
        A newer version of the program wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._noted: dict[str, Uses] = {}
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            _log.warning("%s is damaged (%s); the cache begins empty", path, error)
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise ConfigError(
                    f"the items have schema {version}, known is {SCHEMA}; upgrade fsdriver", str(self._path)
                )
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(_CREATE)
            db.execute(f"PRAGMA user_version={SCHEMA}")
        except (sqlite3.Error, ConfigError):
            db.close()
            raise
        return db

    def get(self, key: str) -> Item | None:
        """One item."""
        found = self._select("WHERE key=?", key)
        return found[0] if found else None

    def all(self) -> list[Item]:
        """Every item."""
        return self._select("")

    def put(self, item: Item) -> None:
        """Set an item."""
        metadata = None if item.metadata is None else json.dumps(item.metadata)
        uses = item.uses
        with self._lock:
            self._noted.pop(item.key, None)
            self._db.execute(
                "INSERT OR REPLACE INTO items VALUES (?,?,?,?,?,?,?,?)",
                (item.key, item.version, item.size, item.added, uses.first, uses.last, uses.count, metadata),
            )

    def remove(self, keys: Iterable[str]) -> None:
        """Forget items."""
        with self._lock:
            for key in keys:
                self._noted.pop(key, None)
                self._db.execute("DELETE FROM items WHERE key=?", (key,))

    def use(self, item: Item, now: float) -> None:
        """Note a use."""
        with self._lock:
            item.uses.note(now)
            self._noted[item.key] = item.uses
            if len(self._noted) >= _BATCH:
                self.flush()

    def flush(self) -> None:
        """Write down the uses noted so far."""
        with self._lock:
            noted, self._noted = self._noted, {}
            if not noted:
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE items SET last=?, count=max(count, ?) WHERE key=?",
                [(uses.last, uses.count, key) for key, uses in noted.items()],
            )
            self._db.execute("COMMIT")

    def totals(self) -> tuple[int, int]:
        """Bytes and items."""
        with self._lock:
            size, count = self._db.execute("SELECT coalesce(sum(size), 0), count(*) FROM items").fetchone()
        return int(size), int(count)

    def close(self) -> None:
        """Write down what was noted and close the database."""
        with self._lock:
            self.flush()
            self._db.close()

    def _select(self, where: str, *values: str) -> list[Item]:
        with self._lock:
            rows = self._db.execute(
                f"SELECT key, version, size, added, first, last, count, metadata FROM items {where}", values
            ).fetchall()
            return [
                Item(
                    key, version, size, added, self._noted.get(key) or Uses(first, last, count),
                    None if metadata is None else json.loads(metadata),
                )
                for key, version, size, added, first, last, count, metadata in rows
            ]  # fmt: skip
