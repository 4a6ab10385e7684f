"""``catalog.db``: the database of what this host owes to the stores, in SQLite (WAL), shared by all processes of a uid.

Here are its connection, transactions and schema; what its tables mean is said by those who read and write them.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fsdriver.errors import ConfigError, FsdriverError, NoSpace
from fsdriver.writeback.syncing import SharedSync, sync_directories

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 5

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pending (
    store TEXT NOT NULL, key TEXT NOT NULL, parent TEXT NOT NULL,
    seq INTEGER NOT NULL, action TEXT NOT NULL, root TEXT NOT NULL, path TEXT NOT NULL,
    base TEXT, staging TEXT, source TEXT, source_version TEXT, size INTEGER NOT NULL, record TEXT,
    inflight INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, error TEXT,
    PRIMARY KEY (store, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_seq ON pending (store, seq);
CREATE INDEX IF NOT EXISTS pending_parent ON pending (store, parent);
CREATE INDEX IF NOT EXISTS pending_source ON pending (store, source) WHERE source IS NOT NULL;
CREATE INDEX IF NOT EXISTS pending_held ON pending (store) WHERE held=1;
CREATE INDEX IF NOT EXISTS pending_staging ON pending (staging) WHERE staging IS NOT NULL;
CREATE TABLE IF NOT EXISTS attributes (
    store TEXT NOT NULL, root TEXT NOT NULL, directory TEXT NOT NULL, name TEXT NOT NULL,
    seq INTEGER NOT NULL, record TEXT,
    PRIMARY KEY (store, root, directory, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    store TEXT NOT NULL, key TEXT NOT NULL, handle TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (store, key, handle)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
    staging TEXT NOT NULL, key TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (staging, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS synced (staging TEXT PRIMARY KEY, asked INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sums (
    staging TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, digest BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boot (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sequence (value INTEGER NOT NULL);
"""
DAMAGED: Final = (
    "the catalog is damaged; what was written is in staging and is not lost: unmount all trees of this user, and repair it "
    "with 'fsdriver fsck'"
)
CHECKPOINT_PAGES: Final = 8192
"""Pages (32 MiB) of the log after which it is copied into the database: that waits for the disk, and one close waits for it."""


class CatalogLock:
    """``catalog.lock``: all who have the database open share a flock on it; who repairs it has it alone.

    It is not taken on the database itself: closing a descriptor of that would drop SQLite's own locks (fcntl(2)).

    Parameters
    ----------
    catalog : Path
    """

    def __init__(self, catalog: Path) -> None:
        self._catalog = catalog
        self._path = catalog.with_suffix(".lock")
        self._descriptor = -1

    def share(self) -> None:
        """Until `release`. Raises ConfigError if the database is being repaired."""
        self._take(fcntl.LOCK_SH, "fsdriver fsck is at work on it; try again when that has ended")

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Raises ConfigError if some process has the database open."""
        self._take(
            fcntl.LOCK_EX,
            "some process uses it: unmount the trees of this user (fsdriver status) and end programs with tier:// URLs",
        )
        try:
            yield
        finally:
            self.release()

    def _take(self, how: int, refusal: str) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ConfigError(refusal, str(self._catalog)) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_BROKEN: Final = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What a damaged database raises: of its texts, or of the message that repeats its schema, some may be no UTF-8."""

_catalogs: weakref.WeakSet[Catalog] = weakref.WeakSet()
_forking: list[Catalog] = []
"""Databases that no other thread may use while the process forks."""


class Catalog:
    """See the module.

    Parameters
    ----------
    path : Path
        ``catalog.db`` in the state directory; created 0600.
    locked : bool
        The caller has the `CatalogLock`, alone.

    Raises
    ------
    ConfigError
        Written by a newer fsdriver: refused, never rewritten. Or being repaired.
    NoSpace
        The file system of the state directory is full. So do all methods that change something, or begin to.
    FsdriverError
        The database is damaged, or cannot be read or written for another reason; from all methods as well.

    Attributes
    ----------
    owner : str
        Begins the marks that processes with this catalog leave in attribute objects; no other catalog has it.
    """

    def __init__(self, path: Path, *, locked: bool = False) -> None:
        self.path = path
        self._use = CatalogLock(path)
        if not locked:
            self._use.share()
        self.lock = threading.RLock()
        self._depth = 0
        self._seq = 0
        self._after: list[Callable[[], None]] = []
        self.owner = ""
        self._log: int | None = None
        self._sync = SharedSync(self._sync_log)
        _catalogs.add(self)
        path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, timeout=30, cached_statements=256
        )
        try:
            self._prepare()
            self.owner = f"{self._identity():08x}-"
        except BaseException as error:  # whatever it was: nobody has the database open then
            self.close()
            if isinstance(error, _BROKEN):
                raise self._explained(error) from error
            raise

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"catalog has schema {version}, known is {SCHEMA_VERSION}; upgrade fsdriver", str(self.path)
            )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        if version < SCHEMA_VERSION:
            # What is new in a version is a table more.
            with self.transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                if self._db.execute("SELECT count(*) FROM sequence").fetchone()[0] == 0:
                    self._db.execute("INSERT INTO sequence VALUES (0)")
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _identity(self) -> int:
        """A random number that the database keeps."""
        found = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        if not found:
            found = secrets.randbelow((1 << 31) - 1) + 1
            self._db.execute(f"PRAGMA application_id={found}")
        return found

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Several changes as one; nests. The commit survives the end of the program, and power loss once it was made durable."""
        with self.lock:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._depth = 1
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:  # a cancellation, or an interrupt, leaves no half of the changes either
                    if self._db.in_transaction:  # SQLite itself ends one that finds the disk full
                        self._db.execute("ROLLBACK")
                    self._after.clear()
                    raise
                finally:
                    self._depth = 0
            except _BROKEN as error:
                raise self._explained(error) from error
            while self._after:
                try:
                    self._after.pop()()
                except OSError as error:
                    # It is about files that nobody needs any more; the next start looks for them.
                    log.warning("after a change of the journal: %s", error)

    def _explained(self, error: sqlite3.DatabaseError | UnicodeDecodeError) -> FsdriverError:
        """What a failure of the database means to who asked for something: nothing of it was written."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} or isinstance(error, UnicodeDecodeError):
            return FsdriverError(f"{DAMAGED} ({error})", str(self.path))
        if code == sqlite3.SQLITE_FULL:
            text = (
                "the file system of the state directory is full, so that no change can be journaled; free space there"
            )
            return NoSpace(text, str(self.path))
        return FsdriverError(
            f"the journal cannot be used ({error}); look at the disk of the state directory", str(self.path)
        )

    def after_commit(self, act: Callable[[], None]) -> None:
        """Do something when the transaction under way has been committed; not at all if it is rolled back."""
        with self.lock:
            if self._depth:
                self._after.append(act)
            else:
                act()

    def rows(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[Any, ...]]:
        """All rows that a statement returns."""
        with self.lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except _BROKEN as error:
                raise self._explained(error) from error

    def exists(self, statement: str, values: Sequence[object] = ()) -> bool:
        """Whether a statement returns any row."""
        with self.lock:
            try:
                return self._db.execute(statement, values).fetchone() is not None
            except _BROKEN as error:
                raise self._explained(error) from error

    def change(self, statement: str, values: Sequence[object] = ()) -> int:
        """Carry a statement out; returns how many rows it changed."""
        with self.lock:
            try:
                return self._db.execute(statement, values).rowcount
            except _BROKEN as error:
                raise self._explained(error) from error

    def change_many(self, statement: str, values: Iterable[Sequence[object]]) -> None:
        """Carry a statement out for each of several sets of values."""
        with self.transaction():
            self._db.executemany(statement, values)

    def next_seq(self) -> int:
        """A number no change of a row had before: the time in nanoseconds, rising in this process whatever the clock does."""
        with self.lock:
            self._seq = max(self._seq + 1, time.time_ns())
            return self._seq

    def must_be_whole(self) -> None:
        """Read all of it. Raises FsdriverError, and closes the database, if it is damaged."""
        try:
            for (said,) in self.rows("PRAGMA quick_check(1)"):
                if said != "ok":
                    raise FsdriverError(f"{DAMAGED} ({said})", str(self.path))
        except FsdriverError:
            self.close()
            raise

    def make_durable(self) -> None:
        """What any process has committed so far survives power loss. Those who ask at the same time share one sync.

        Raises
        ------
        FsdriverError
            The disk has failed.
        """
        try:
            self._sync()
        except OSError as error:
            text = f"the journal cannot be written to the disk ({error.strerror})"
            raise FsdriverError(text, str(self.path)) from error

    @property
    def syncs(self) -> int:
        """How often this process has synced the journal."""
        return self._sync.count

    def _sync_log(self) -> None:
        # SQLite appends commits to the write-ahead log, and syncs it itself before a checkpoint copies them elsewhere.
        if self._log is None:
            self._log = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            sync_directories(self.path.parent)
        os.fdatasync(self._log)

    def before_fork(self) -> None:
        """Wait until no thread is inside SQLite: a child would inherit its library-wide locks, held for ever."""
        self.lock.acquire()

    def after_fork(self) -> None:
        """Go on, in parent and child (which makes a catalog of its own)."""
        self.lock.release()

    def close(self) -> None:
        """Close the database."""
        with self.lock:
            self._db.close()
            self._use.release()
            if self._log is not None:
                os.close(self._log)
                self._log = None


def _before_fork() -> None:
    _forking.extend(_catalogs)
    for catalog in _forking:
        catalog.before_fork()


def _after_fork() -> None:
    while _forking:
        _forking.pop().after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
