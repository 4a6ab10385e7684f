"""The SQLite index of sealed and partial files: sizes, last use, pins, totals. Rebuildable; shared by processes (WAL).

A row is written before its file gets its name and removed after the file, so a crash leaves a row without a file
(found at eviction), never a file without a row. Only an index that was lost is rebuilt from the files, once, by who
makes the new one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fsdriver.errors import ConfigError

from . import locks
from .files import sealed_files
from .keys import ObjectKey, digest
from .partial import FOLDER, place_of

SCHEMA: Final = 2
FILE_FORMAT: Final = 1
"""Of a sealed file: the object's bytes and nothing else, encrypted as the codec says (`fsdriver.cache.cipher`)."""
BUSY_SECONDS: Final = 30.0
UNWRITTEN_SECONDS: Final = 600.0
"""Before the last use: what was sealed earlier has long been written (dirty pages are, after 30 s)."""

_CREATE: Final = """
CREATE TABLE entries (
    place TEXT PRIMARY KEY, store BLOB, key BLOB, version TEXT, size INTEGER NOT NULL, used REAL NOT NULL,
    format INTEGER NOT NULL, codec TEXT NOT NULL,
    partial INTEGER NOT NULL DEFAULT 0, checksum BLOB, sealed REAL NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX entries_used ON entries (used);
CREATE INDEX entries_key ON entries (store, key);
CREATE INDEX entries_suspect ON entries (place) WHERE suspect;
CREATE TABLE boot (id TEXT NOT NULL);
INSERT INTO boot VALUES ('');
CREATE TABLE pins (place TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE totals (bytes INTEGER NOT NULL, entries INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER entry_added AFTER INSERT ON entries
    BEGIN UPDATE totals SET bytes = bytes + NEW.size, entries = entries + 1; END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries
    BEGIN UPDATE totals SET bytes = bytes - OLD.size, entries = entries - 1; END;
CREATE TRIGGER entry_resized AFTER UPDATE OF size ON entries
    BEGIN UPDATE totals SET bytes = bytes + NEW.size - OLD.size; END;
"""

_UPGRADE: Final = (
    "ALTER TABLE entries ADD COLUMN partial INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE entries ADD COLUMN checksum BLOB",
    "ALTER TABLE entries ADD COLUMN sealed REAL NOT NULL DEFAULT 0",
    "ALTER TABLE entries ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX entries_suspect ON entries (place) WHERE suspect",
    "CREATE TABLE boot (id TEXT NOT NULL)",
    "INSERT INTO boot VALUES ('')",
)
"""From schema 1."""

_HOME: Final = 65
"""Characters of `fsdriver.cache.keys.home`."""
_PINNED: Final = f"""
    substr(entries.place, 1, {_HOME}) IN (SELECT place FROM pins) AND NOT EXISTS (
        SELECT 1 FROM entries AS later WHERE later.used > entries.used
        AND later.place > substr(entries.place, 1, {_HOME}) || '/' AND later.place < substr(entries.place, 1, {_HOME}) || '0')
"""
"""Of the versions of a pinned object, the one used last: others are of no more use."""

_log = logging.getLogger("fsdriver.cache")


@dataclass(frozen=True, slots=True)
class Indexed:
    """A sealed file: its place below ``objects/``, bytes, and whether it must stay."""

    place: str
    size: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the index has it: its place, bytes (of a partial file: those counted), which object it is, its codec."""

    place: str
    size: int
    partial: bool
    label: str
    codec: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A complete file that is about to be sealed.

    Attributes
    ----------
    key : ObjectKey
    path : str
        Where it is now.
    checksum : bytes or None
        `fsdriver.cache.Checksum` of its bytes, if that is known.
    """

    key: ObjectKey
    path: str
    checksum: bytes | None = None


class Index:
    """The index of one cache directory. Thread-safe; a forked child opens its own connection.

    Parameters
    ----------
    path : Path
        The database; made when missing or damaged, then filled from the files below ``objects``.
    objects : Path
        The directory of sealed files.

    Raises
    ------
    ConfigError
        The index was written by a newer version of the program.
    """

    def __init__(self, path: Path, objects: Path) -> None:
        self._path = path
        self._objects = objects
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._inherited: list[sqlite3.Connection] = []
        with self._lock:
            self._open()

    def before_fork(self) -> None:
        """Wait until no thread is inside SQLite: a child would inherit its library-wide locks, held for ever."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connection alone (SQLite forbids its use) and connect anew."""
        self._lock = threading.Lock()
        if self._connection is not None:
            self._inherited.append(self._connection)
            self._connection = None

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # -- entries -----------------------------------------------------------------------------------------------------

    def add(self, files: Sequence[Finished], now: float) -> None:
        """Record files that are about to be sealed."""
        statement = (
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0) ON CONFLICT (place) DO UPDATE SET"
            " used = excluded.used, size = excluded.size, partial = 0, checksum = excluded.checksum,"
            " sealed = excluded.sealed, suspect = 0"
        )
        rows = [
            (*_identify(one.key), one.key.stored, now, FILE_FORMAT, one.key.codec, one.checksum, now) for one in files
        ]
        if len(rows) == 1:
            self._execute(statement, rows[0])
            return
        with self._transaction() as connection:
            connection.executemany(statement, rows)

    def hold(self, key: ObjectKey, size: int, now: float) -> None:
        """Count at least ``size`` bytes for a partial file."""
        self._execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, NULL, 0, 0) ON CONFLICT (place) DO UPDATE SET"
            " used = excluded.used, size = max(size, excluded.size), partial = 1",
            (*_identify(key), size, now, FILE_FORMAT, key.codec),
        )

    def resize(self, place: str, size: int, now: float) -> None:
        """Count just ``size`` bytes for a partial file."""
        self._execute("UPDATE entries SET size = ?, used = ? WHERE place = ? AND partial", (size, now, place))

    def size(self, place: str) -> int:
        """Bytes counted for a place."""
        rows = self._query("SELECT size FROM entries WHERE place = ?", (place,))
        return int(rows[0][0]) if rows else 0

    def remove(self, place: str) -> None:
        """Forget a file that has gone."""
        self._execute("DELETE FROM entries WHERE place = ?", (place,))

    def touch(self, uses: dict[str, float]) -> None:
        """Note last uses, one transaction for all."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE entries SET used = max(used, ?) WHERE place = ?",
                [(used, place) for place, used in uses.items()],
            )

    def suspects(self, boot: str) -> set[str]:
        """Places of sealed files that may not be on the disk, after marking those of the last boot."""
        if self._query("SELECT id FROM boot")[0][0] != boot:
            with self._transaction() as connection:
                changed = connection.execute("UPDATE boot SET id = ? WHERE id <> ?", (boot, boot)).rowcount
                if changed:  # else another process was first
                    connection.execute(
                        "UPDATE entries SET suspect = 1 WHERE sealed >= (SELECT max(used) FROM entries) - ?",
                        (UNWRITTEN_SECONDS,),
                    )
        return {str(place) for (place,) in self._query("SELECT place FROM entries WHERE suspect")}

    def clear(self, place: str) -> None:
        """A file is what was sealed."""
        self._execute("UPDATE entries SET suspect = 0 WHERE place = ?", (place,))

    def checksum(self, place: str) -> bytes | None:
        """Of a sealed file, if it was computed."""
        rows = self._query("SELECT checksum FROM entries WHERE place = ?", (place,))
        return rows[0][0] if rows else None

    def totals(self) -> tuple[int, int]:
        """Bytes and entries."""
        row = self._query("SELECT bytes, entries FROM totals")[0]
        return int(row[0]), int(row[1])

    def otherwise(self, codec: str) -> int:
        """Bytes of files that are not encrypted like that: with another key, or not at all."""
        return int(self._query("SELECT coalesce(sum(size), 0) FROM entries WHERE codec <> ?", (codec,))[0][0])

    def oldest(self, after: tuple[float, str], count: int) -> list[tuple[float, str, int]]:
        """Entries that are not pinned as (last use, place, bytes), least recently used first, beyond ``after``."""
        rows = self._query(
            "SELECT used, place, size FROM entries"
            f" WHERE (used, place) > (?, ?) AND NOT ({_PINNED}) ORDER BY used, place LIMIT ?",
            (*after, count),
        )
        return [(float(used), str(place), int(size)) for used, place, size in rows]

    def versions(self, home: str) -> list[Indexed]:
        """All files of one object (`fsdriver.cache.keys.home`)."""
        return self._indexed("place > ? AND place < ?", (f"{home}/", f"{home}0"))

    def below(self, store: str, prefix: str) -> list[Indexed]:
        """All files of the objects of a store whose keys begin with ``prefix``."""
        if not prefix:
            return self.versions(digest(store))
        low = _blob(prefix)
        return self._indexed("store = ? AND substr(key, 1, ?) = ?", (_blob(store), len(low), low))

    def listed(self, place: str | None = None) -> list[Listed]:
        """All files, or the one at a place."""
        where, values = ("1", ()) if place is None else ("place = ?", (place,))
        rows = self._query(f"SELECT place, size, partial, store, key, codec FROM entries WHERE {where}", values)
        return [
            Listed(
                str(place),
                int(size),
                bool(partial),
                f"{_text(store)}|{_text(key)}" if key is not None else str(place),
                codec,
            )
            for place, size, partial, store, key, codec in rows
        ]

    def everything(self) -> list[Indexed]:
        """All files."""
        return self._indexed("1", ())

    def _indexed(self, where: str, values: Sequence[str | bytes | int]) -> list[Indexed]:
        rows = self._query(f"SELECT place, size, {_PINNED} FROM entries WHERE {where}", values)
        return [Indexed(str(place), int(size), bool(pinned)) for place, size, pinned in rows]

    # -- pins --------------------------------------------------------------------------------------------------------

    def pin(self, homes: Sequence[str]) -> None:
        """Protect the files of objects from eviction, also those not yet here."""
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO pins VALUES (?)", [(home,) for home in homes])

    def unpin(self, homes: Sequence[str]) -> None:
        """Undo `pin`."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM pins WHERE place = ?", [(home,) for home in homes])

    def pinned(self, home: str) -> bool:
        """Whether an object is pinned."""
        return bool(self._query("SELECT 1 FROM pins WHERE place = ?", (home,)))

    def pins(self) -> int:
        """Number of pins."""
        return int(self._query("SELECT count(*) FROM pins")[0][0])

    # -- the database ------------------------------------------------------------------------------------------------

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connected().execute(statement, values).fetchall()

    def _execute(self, statement: str, values: Sequence[Any]) -> None:
        with self._lock:
            self._connected().execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:  # an interrupt leaves no open transaction either
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None or self._identity != _identity(self._path):
            if self._connection is not None:
                _log.warning("%s was removed while in use; making it anew from the files", self._path)
                self._connection.close()
                self._connection = None
            self._open()
        assert self._connection is not None
        return self._connection

    def _open(self) -> None:
        self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.mutex(Path(f"{self._path}.lock")):
            try:
                connection = self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                _log.warning("%s is damaged (%s); making it anew from the files", self._path, error)
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                connection = self._connect()
            self._connection = connection
            self._identity = _identity(self._path)

    def _connect(self) -> sqlite3.Connection:
        if not self._path.exists():
            # Only a new file may be closed here: a close drops this process's POSIX locks on the file.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if self._schema(connection) == 0:
                connection.execute("BEGIN IMMEDIATE")
                # Another process may have been first.
                if self._schema(connection) == 0:
                    for statement in _statements():
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {SCHEMA}")
                    connection.executemany(
                        f"INSERT INTO entries VALUES (?, NULL, NULL, NULL, ?, ?, {FILE_FORMAT}, '', ?, NULL, 0, 0)",
                        self._found(),
                    )
                connection.execute("COMMIT")
            elif self._schema(connection) < SCHEMA:
                connection.execute("BEGIN IMMEDIATE")
                if self._schema(connection) < SCHEMA:
                    for statement in _UPGRADE:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {SCHEMA}")
                connection.execute("COMMIT")
        except BaseException:  # an interrupt leaves no connection either
            connection.close()
            raise
        return connection

    def _schema(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            raise ConfigError(
                f"the cache index has schema {version}, this program knows {SCHEMA}: use the newer program or another"
                " cache directory",
                str(self._path),
            )
        return version

    def _found(self) -> Iterable[tuple[str, int, float, int]]:
        for path, status in sealed_files(self._objects):
            yield str(path.relative_to(self._objects)), status.st_size, status.st_mtime, 0
        for path in self._objects.glob(f"{FOLDER}/*[!p]"):  # without the maps
            status = path.stat()
            yield place_of(path), status.st_blocks * 512, status.st_mtime, 1


def _statements() -> Iterator[str]:
    pending = ""
    for line in _CREATE.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _identify(key: ObjectKey) -> tuple[str, bytes, bytes, str]:
    return key.place, _blob(key.store), _blob(key.key), key.version


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogateescape")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
