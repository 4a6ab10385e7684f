"""The journal: what staging still owes to the stores, as one row a key, in SQLite (WAL).

The journal keeps *desired states*, not a log of operations: one row says what shall become of one key (be put from a staging
file, be copied from another key, be deleted). Create → write → rename → delete of one file therefore collapses to what
remains of it, and carrying a row out twice is harmless. `Journal` is shared by all processes of a uid; whoever holds the
uploader's lock carries rows out, all others enqueue. A second table holds the records that attribute objects still lack.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fsdriver.attributes import Record
from fsdriver.errors import ConfigError
from fsdriver.names import escape, unescape
from fsdriver.writeback.pending import UNKNOWN, Action, AttributeChange, Pending

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2

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
CREATE TABLE IF NOT EXISTS sequence (value INTEGER NOT NULL);
"""
_COLUMNS: Final = (
    "store, key, parent, seq, action, root, path, base, staging, source, source_version, size, record, inflight, held, "
    "attempts, error"
)

_WRITE: Final = (
    f"INSERT INTO pending ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,0,?,0,NULL) ON CONFLICT (store, key) DO UPDATE SET "
    "parent=excluded.parent, seq=excluded.seq, action=excluded.action, root=excluded.root, path=excluded.path, "
    f"base=CASE WHEN inflight THEN '{UNKNOWN}' ELSE base END, staging=excluded.staging, source=excluded.source, "
    "source_version=excluded.source_version, size=excluded.size, record=excluded.record, held=excluded.held, attempts=0, "
    "not_before=0, error=NULL RETURNING base, inflight"
)
"""One statement, so one transaction where none is open: what closing a file costs."""

_READY: Final = (
    "inflight=0 AND held=0 AND not_before<=? AND NOT EXISTS "
    "(SELECT 1 FROM pending AS reader WHERE reader.store=pending.store AND reader.source=pending.key "
    "AND reader.key<>pending.key) "
    "AND NOT (action='delete' AND substr(key, -1)='/' AND EXISTS "
    "(SELECT 1 FROM pending AS child WHERE child.store=pending.store AND child.key>pending.key "
    "AND child.key<substr(pending.key, 1, length(pending.key)-1)||'0')) "
    "AND (pending.action='delete' OR NOT EXISTS "
    "(SELECT 1 FROM pending AS before WHERE before.store=pending.store AND before.action='delete' AND before.key="
    "CASE pending.action WHEN 'marker' THEN rtrim(pending.key, '/') ELSE pending.key||'/' END)) "
    "AND (pending.action='delete' OR NOT EXISTS "
    "(SELECT 1 FROM pending AS above WHERE above.store=pending.store AND above.key=pending.parent "
    "AND above.action='marker'))"
)
"""Whether a row can be carried out at a time; see `Journal.ready`."""

CHECKPOINT_PAGES: Final = 8192
"""Pages (32 MiB) of the log after which it is copied into the database: that waits for the disk, and one close waits for it."""
_HELD: Final = "\0"
"""Ends the key of a held row, as no key of a store can: it stands beside what others see of that key."""


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_forking: list[Journal] = []
"""Journals that no other thread may use while the process forks."""


class Journal:
    """The pending work of one uid on one host.

    Parameters
    ----------
    path : Path
        ``catalog.db`` in the state directory; created 0600.

    Raises
    ------
    ConfigError
        Written by a newer fsdriver: refused, never rewritten.

    Attributes
    ----------
    owner : str
        Begins the marks that processes with this journal leave in attribute objects; no other journal has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch(mode=0o600, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        self._seq = 0
        self._after: list[Callable[[], None]] = []
        self.owner = ""
        _journals.add(self)
        self._db = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, timeout=30, cached_statements=256
        )
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigError(f"catalog has schema {version}, known is {SCHEMA_VERSION}; upgrade fsdriver", str(path))
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
        self.owner = f"{self._identity():08x}-"

    def _identity(self) -> int:
        """A random number that the database keeps."""
        found = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        if not found:
            found = secrets.randbelow((1 << 31) - 1) + 1
            self._db.execute(f"PRAGMA application_id={found}")
        return found

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Several changes as one; nests. ``durable`` makes the commit survive power loss."""
        with self._lock:
            if self._depth:
                assert not durable, "a transaction that has begun cannot become durable"
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            if durable:
                self._db.execute("PRAGMA synchronous=FULL")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._depth = 1
                try:
                    yield
                except BaseException:
                    self._db.execute("ROLLBACK")
                    self._after.clear()
                    raise
                finally:
                    self._depth = 0
                self._db.execute("COMMIT")
            finally:
                if durable:
                    self._db.execute("PRAGMA synchronous=NORMAL")
            while self._after:
                try:
                    self._after.pop()()
                except OSError as error:
                    # It is about files that nobody needs any more; the next start looks for them.
                    log.warning("after a change of the journal: %s", error)

    def after_commit(self, act: Callable[[], None]) -> None:
        """Do something when the transaction under way has been committed; not at all if it is rolled back."""
        with self._lock:
            if self._depth:
                self._after.append(act)
            else:
                act()

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, store: str, key: str) -> Pending | None:
        """What one key owes."""
        rows = self._rows("store=? AND key=?", (store, key))
        return rows[0] if rows else None

    def held_row(self, store: str, key: str) -> Pending | None:
        """What is kept of a key against a crash, while its file is still being written."""
        return self.get(store, key + _HELD)

    def children(self, store: str, parent: str) -> Sequence[Pending]:
        """Rows of one directory."""
        return self._rows("store=? AND parent=? AND held=0", (store, parent))

    def below(self, store: str, prefix: str) -> Sequence[Pending]:
        """Rows of all keys that begin with ``prefix``."""
        where, values = _range(prefix)
        return self._rows(f"store=? AND held=0{where}", (store, *values))

    def failing(self, store: str, limit: int) -> Sequence[Pending]:
        """Rows that were tried and not taken by the store, oldest first; they are tried again."""
        return self._rows("store=? AND attempts>0 ORDER BY seq LIMIT ?", (store, limit))

    def failed_with(self, store: str, error: str) -> bool:
        """Whether any row of a store has just this ``error``."""
        with self._lock:
            row = self._db.execute("SELECT 1 FROM pending WHERE store=? AND error=? LIMIT 1", (store, error)).fetchone()
        return row is not None

    def owes_below(self, store: str, prefix: str, *, deletions: bool = True) -> bool:
        """Whether anything is owed for a key that begins with ``prefix``; ``deletions`` False leaves those out."""
        where, values = _range(prefix)
        kinds = "" if deletions else " AND action<>'delete'"
        with self._lock:
            row = self._db.execute(
                f"SELECT 1 FROM pending WHERE store=? AND held=0{where}{kinds} LIMIT 1", (store, *values)
            ).fetchone()
        return row is not None

    def implied_directories(self, store: str, prefix: str) -> Sequence[str]:
        """Key segments directly below a prefix under which something deeper is to be made."""
        end = prefix[:-1] + "0" if prefix else chr(0x10FFFF)
        with self._lock:
            rows = self._db.execute(
                "SELECT DISTINCT substr(rest, 1, instr(rest, '/') - 1) FROM (SELECT substr(key, ?) AS rest FROM pending "
                "WHERE store=? AND key>? AND key<? AND action<>'delete' AND held=0) WHERE instr(rest, '/') > 0",
                (len(prefix) + 1, store, prefix, end),
            ).fetchall()
        return [row[0] for row in rows]

    def ready(self, store: str, now: float, limit: int) -> Sequence[Pending]:
        """Rows that can be carried out now, oldest first.

        No key is touched while a pending copy still reads from it, and no directory's marker is deleted while something is
        pending below it: stores that keep real directories would refuse or leave it behind. For them too, a file waits until the
        directory that had its name is gone, a directory until the file is, and what is in a new directory until it is made.
        """
        return self._rows(f"store=? AND {_READY} ORDER BY seq LIMIT ?", (store, now, limit))

    def is_empty(self, store: str) -> bool:
        """Nothing is owed to a store."""
        return not self.owes_below(store, "") and not self.attribute_directories(store)

    def count(self, store: str, prefix: str = "") -> tuple[int, int]:
        """How many rows are pending for keys of a store that begin with ``prefix``, and their bytes."""
        where, values = _range(prefix)
        with self._lock:
            rows, size = self._db.execute(
                f"SELECT count(*), coalesce(sum(size),0) FROM pending WHERE store=?{where}", (store, *values)
            ).fetchone()
        return int(rows), int(size)

    def uses(self, staging: str) -> bool:
        """Whether some row still needs a staging file."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM pending WHERE staging=? LIMIT 1", (staging,)).fetchone() is not None

    def is_source(self, store: str, key: str) -> bool:
        """Whether a copy that is owed reads from a key."""
        with self._lock:
            found = self._db.execute(
                "SELECT 1 FROM pending WHERE store=? AND source=? LIMIT 1", (store, key)
            ).fetchone()
        return found is not None

    def restage(self, old: str, new: str) -> None:
        """The rows that need a staging file find its bytes under a new path.

        Those being sent count as replaced: what is sent from the old path may not be what was acknowledged.
        """
        with self.transaction():
            self._db.execute(
                "UPDATE pending SET staging=?, seq=CASE WHEN inflight THEN ? ELSE seq END WHERE staging=?",
                (new, self._next_seq(), old),
            )

    def attribute_changes(self, store: str, root: str, directory: str) -> Mapping[str, AttributeChange]:
        """Records that one attribute object still lacks, by name."""
        with self._lock:
            rows = self._db.execute(
                "SELECT name, record, seq FROM attributes WHERE store=? AND root=? AND directory=?",
                (store, root, escape(directory)),
            ).fetchall()
        changes = (
            AttributeChange(store, root, directory, unescape(name), json.loads(record) if record else None, seq)
            for name, record, seq in rows
        )
        return {change.name: change for change in changes}

    def attribute_change(self, store: str, root: str, directory: str, name: str) -> AttributeChange | None:
        """The record of one name that an attribute object still lacks."""
        with self._lock:
            row = self._db.execute(
                "SELECT record, seq FROM attributes WHERE store=? AND root=? AND directory=? AND name=?",
                (store, root, escape(directory), escape(name)),
            ).fetchone()
        return (
            AttributeChange(store, root, directory, name, json.loads(row[0]) if row[0] else None, row[1])
            if row
            else None
        )

    def owes_attributes(self, store: str, root: str, directory: str, name: str | None = None) -> bool:
        """Whether an attribute object lacks anything (of one name)."""
        where, values = ("", ()) if name is None else (" AND name=?", (escape(name),))
        with self._lock:
            row = self._db.execute(
                f"SELECT 1 FROM attributes WHERE store=? AND root=? AND directory=?{where} LIMIT 1",
                (store, root, escape(directory), *values),
            ).fetchone()
        return row is not None

    def has_children(self, store: str, parent: str) -> bool:
        """Whether anything is pending in a directory."""
        with self._lock:
            row = self._db.execute(
                "SELECT 1 FROM pending WHERE store=? AND parent=? AND held=0 LIMIT 1", (store, parent)
            ).fetchone()
        return row is not None

    def parents(self, store: str) -> Collection[str]:
        """Key prefixes of all directories in which something is pending."""
        with self._lock:
            rows = self._db.execute("SELECT DISTINCT parent FROM pending WHERE store=? AND held=0", (store,)).fetchall()
        return {row[0] for row in rows}

    def attribute_directories(self, store: str) -> Sequence[tuple[str, str, int]]:
        """(root, directory, oldest seq) of every attribute object that lacks something."""
        with self._lock:
            rows = self._db.execute(
                "SELECT root, directory, min(seq) FROM attributes WHERE store=? GROUP BY root, directory",
                (store,),
            ).fetchall()
        return [(root, unescape(directory), seq) for root, directory, seq in rows]

    # -- writing -----------------------------------------------------------------------------------------------------

    def make_durable(self) -> None:
        """What was written so far survives power loss: a synchronous commit carries every earlier one with it."""
        with self.transaction(durable=True):
            self._db.execute("UPDATE sequence SET value=value+1")

    def _next_seq(self) -> int:
        """A number no change of a row had before: the time in nanoseconds, rising in this process whatever the clock does."""
        self._seq = max(self._seq + 1, time.time_ns())
        return self._seq

    def write(self, row: Pending) -> Pending:
        """Set what a key owes; the row there before is replaced, its knowledge of the store's version kept.

        Returns
        -------
        Pending
            The row as written, with its sequence number and base.
        """
        if row.held:
            return self._hold(row)
        with self._lock:
            seq = self._next_seq()
            base, inflight = self._db.execute(
                _WRITE,
                (
                    row.store, row.key, row.parent, seq, row.action.value, row.root, escape(row.path), row.base, row.staging,
                    row.source, row.source_version, row.size, json.dumps(row.record) if row.record is not None else None,
                    row.key.endswith(_HELD),
                ),
            ).fetchall()[0]  # fmt: skip
        return replace(row, seq=seq, base=base, inflight=bool(inflight), attempts=0, error=None)

    def _hold(self, row: Pending) -> Pending:
        """Keep a row beside the one that others see: neither sent nor shown until `let_go`, or until the key is written."""
        with self.transaction():
            shown = self.get(row.store, row.key)
            base = row.base if shown is None else UNKNOWN if shown.inflight else shown.base
            self.forget_held(row.store, row.key)
            written = self.write(replace(row, key=row.key + _HELD, base=base, held=False))
        return replace(written, key=row.key, held=True)

    def forget_held(self, store: str, key: str) -> None:
        """The file was closed or removed: nothing is kept of it beside what is owed."""
        with self._lock:
            self._db.execute("DELETE FROM pending WHERE store=? AND key=?", (store, key + _HELD))

    def describe(self, store: str, key: str, record: Record) -> bool:
        """Give a key that is to be put or copied another attribute record; False if no such thing is owed for it."""
        with self._lock:
            changed = self._db.execute(
                "UPDATE pending SET record=? WHERE store=? AND key=? AND action IN ('put', 'copy')",
                (json.dumps(record), store, key),
            ).rowcount
        return bool(changed)

    def forget(self, store: str, key: str) -> None:
        """Owe nothing for a key any more."""
        with self.transaction():
            self._db.execute("DELETE FROM pending WHERE store=? AND key=?", (store, key))

    def claim(self, store: str, now: float, limit: int, spared: Collection[str] = ()) -> Sequence[Pending]:
        """Mark rows that are `ready` as being carried out, except of keys in ``spared``; returns them, oldest first."""
        with self.transaction():
            rows = [row for row in self.ready(store, now, limit) if row.key not in spared]
            self._db.executemany(
                "UPDATE pending SET inflight=1 WHERE store=? AND key=?", [(row.store, row.key) for row in rows]
            )
        return rows

    def claim_one(self, store: str, key: str, now: float) -> Pending | None:
        """`claim` of what one key owes; None if that is nothing, or not ready."""
        with self._lock:
            rows = self._db.execute(
                f"UPDATE pending SET inflight=1 WHERE store=? AND key=? AND {_READY} RETURNING {_COLUMNS}",
                (store, key, now),
            ).fetchall()
        return _pending(*rows[0]) if rows else None

    def reset_inflight(self, store: str) -> None:
        """A new holder of the uploader's lock begins: what a dead one had under way is to be done again.

        The dead owner may have succeeded, so what the store holds is unknown: those rows are not checked any more.
        """
        with self.transaction():
            self._db.execute("UPDATE pending SET inflight=0, base=NULL WHERE store=? AND inflight=1", (store,))
            self._db.execute("UPDATE pending SET not_before=0 WHERE store=?", (store,))

    def note_upload(self, store: str, key: str, handle: str, owner: str) -> None:
        """A process has opened an upload in parts."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO uploads VALUES (?,?,?,?)", (store, key, handle, owner))

    def forget_upload(self, store: str, key: str, handle: str) -> None:
        """An upload in parts has ended."""
        with self._lock:
            self._db.execute("DELETE FROM uploads WHERE store=? AND key=? AND handle=?", (store, key, handle))

    def uploads(self, store: str) -> Sequence[tuple[str, str, str]]:
        """(key, handle, owner) of every upload in parts that has not ended."""
        with self._lock:
            return self._db.execute("SELECT key, handle, owner FROM uploads WHERE store=?", (store,)).fetchall()

    def held(self, store: str) -> Sequence[Pending]:
        """Rows of files that were still being written when they were synced."""
        return self._rows("store=? AND held=1", (store,))

    def let_go(self, row: Pending) -> None:
        """Who wrote a held row is gone: what was synced is to be sent."""
        with self.transaction():
            self.forget_held(row.store, row.key)
            self.write(replace(row, held=False))

    def finish(self, row: Pending, version: str | None) -> Pending | None:
        """A row was carried out and the store now holds ``version`` ("" none).

        Returns
        -------
        Pending or None
            The row as it was at last (its record may have changed meanwhile), if nothing more is owed for the key; None if
            something else is owed now, which knows the new version.
        """
        with self.transaction():
            self._db.execute("UPDATE pending SET base=? WHERE store=? AND key=?", (version, row.store, row.key + _HELD))
            ended = self._db.execute(
                "DELETE FROM pending WHERE store=? AND key=? AND seq=? RETURNING record", (row.store, row.key, row.seq)
            ).fetchall()
            if ended:
                return replace(row, record=json.loads(ended[0][0]) if ended[0][0] else None)
            self._db.execute(
                "UPDATE pending SET inflight=0, base=? WHERE store=? AND key=?", (version, row.store, row.key)
            )
            return None

    def postpone(self, row: Pending, not_before: float, error: str) -> bool:
        """A row failed: try again not before a time (seconds since the epoch).

        Returns
        -------
        bool
            False if the row was replaced or forgotten meanwhile: what failed is owed no more, its successor can go at once.
        """
        with self.transaction():
            current = self.get(row.store, row.key)
            same = current is not None and current.seq == row.seq
            self._db.execute(
                "UPDATE pending SET inflight=0, attempts=attempts+?, not_before=?, error=?, "
                "base=CASE WHEN base=? THEN NULL ELSE base END WHERE store=? AND key=?",
                (int(same), not_before if same else 0, error if same else None, UNKNOWN, row.store, row.key),
            )
        return same

    def put_off(self, row: Pending, not_before: float, why: str) -> None:
        """A row that was claimed is not carried out before a time (seconds since the epoch); nothing was done for it."""
        with self.transaction():
            stands = self._db.execute(
                "UPDATE pending SET inflight=0, not_before=?, error=? WHERE store=? AND key=? AND seq=?",
                (not_before, why, row.store, row.key, row.seq),
            ).rowcount
            if not stands:
                self.finish(row, row.base)

    def write_attributes(self, changes: Iterable[AttributeChange]) -> None:
        """Set records that attribute objects lack."""
        with self.transaction():
            seq = self._next_seq()
            self._db.executemany(
                "INSERT OR REPLACE INTO attributes (store, root, directory, name, seq, record) VALUES (?,?,?,?,?,?)",
                [
                    (
                        c.store,
                        c.root,
                        escape(c.directory),
                        escape(c.name),
                        seq,
                        json.dumps(c.record) if c.record else None,
                    )
                    for c in changes
                ],
            )

    def finish_attributes(self, changes: Iterable[AttributeChange]) -> None:
        """These records are on the bucket; those that changed meanwhile stay."""
        with self.transaction():
            self._db.executemany(
                "DELETE FROM attributes WHERE store=? AND root=? AND directory=? AND name=? AND seq=?",
                [(c.store, c.root, escape(c.directory), escape(c.name), c.seq) for c in changes],
            )

    def drop_attributes(self, store: str, root: str, directory: str) -> None:
        """The directory is gone: owe nothing for its attribute object."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM attributes WHERE store=? AND root=? AND directory=?", (store, root, escape(directory))
            )

    def before_fork(self) -> None:
        """Wait until no thread is inside SQLite: a child would inherit its library-wide locks, held for ever."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Go on, in parent and child (which makes a journal of its own)."""
        self._lock.release()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _rows(self, where: str, values: tuple[object, ...]) -> Sequence[Pending]:
        with self._lock:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM pending WHERE {where}", values).fetchall()
        return [_pending(*row) for row in found]


def _range(prefix: str) -> tuple[str, tuple[str, ...]]:
    """Condition, and its values, for keys that begin with ``prefix``."""
    return (" AND key>=? AND key<?", (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))) if prefix else ("", ())


def _pending(*row: Any) -> Pending:
    """A row of `_COLUMNS`."""
    (*names, action, root, path, base, staging, source, version, size, record, inflight, held, attempts, error) = row
    store, key, parent, seq = names
    parsed = json.loads(record) if record else None
    return Pending(
        store, key.removesuffix(_HELD), parent, seq, Action(action), root, unescape(path), base, staging, source, version,
        size, parsed, bool(inflight), bool(held), attempts, error,
    )  # fmt: skip


def _before_fork() -> None:
    _forking.extend(_journals)
    for journal in _forking:
        journal.before_fork()


def _after_fork() -> None:
    while _forking:
        _forking.pop().after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
