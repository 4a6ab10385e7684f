"""The journal: what staging still owes to the stores, as one row a key of the catalog.

The journal keeps *desired states*, not a log of operations: one row says what shall become of one key (be put from a staging
file, be copied from another key, be deleted). Create → write → rename → delete of one file therefore collapses to what
remains of it, and carrying a row out twice is harmless. `Journal` is shared by all processes of a uid; whoever holds the
uploader's lock carries rows out, all others enqueue.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fsdriver.attributes import Record
from fsdriver.errors import FsdriverError
from fsdriver.names import escape, unescape
from fsdriver.writeback import intents
from fsdriver.writeback.attribute_rows import AttributeRows
from fsdriver.writeback.catalog import Catalog
from fsdriver.writeback.pending import INTERRUPTED, REPAIR, UNKNOWN, Action, Pending, read_record
from fsdriver.writeback.sums import Sums

_COLUMNS: Final = (
    "store, key, parent, seq, action, root, path, base, staging, source, source_version, size, record, inflight, held, "
    "attempts, error"
)

_WRITE: Final = (
    f"INSERT INTO pending ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,0,?,0,NULL) ON CONFLICT (store, key) DO UPDATE SET "
    "parent=excluded.parent, seq=excluded.seq, action=excluded.action, root=excluded.root, path=excluded.path, "
    f"base=CASE WHEN inflight THEN '{UNKNOWN}' WHEN error LIKE '{INTERRUPTED}%' THEN NULL ELSE base END, "
    "staging=excluded.staging, source=excluded.source, "
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

_HELD: Final = "\0"
"""Ends the key of a held row, as no key of a store can: it stands beside what others see of that key."""


class Journal(Catalog):
    """The pending work of one uid on one host.

    Parameters
    ----------
    path, locked
        See `Catalog`.

    Attributes
    ----------
    attributes : AttributeRows
        The records that attribute objects still lack.
    sums : Sums
        Checksums of staging files.
    """

    def __init__(self, path: Path, *, locked: bool = False) -> None:
        super().__init__(path, locked=locked)
        self.attributes = AttributeRows(self)
        self.sums = Sums(self)

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

    def everything(self) -> Sequence[Pending]:
        """All rows, of all stores."""
        return self._rows("1 ORDER BY seq", ())

    def failing(self, store: str, limit: int) -> Sequence[Pending]:
        """Rows that were tried and not taken by the store, oldest first; they are tried again."""
        return self._rows("store=? AND attempts>0 ORDER BY seq LIMIT ?", (store, limit))

    def failed_with(self, store: str, error: str) -> bool:
        """Whether any row of a store has just this ``error``."""
        return self.exists("SELECT 1 FROM pending WHERE store=? AND error=? LIMIT 1", (store, error))

    def owes_below(self, store: str, prefix: str, *, deletions: bool = True) -> bool:
        """Whether anything is owed for a key that begins with ``prefix``; ``deletions`` False leaves those out."""
        where, values = _range(prefix)
        kinds = "" if deletions else " AND action<>'delete'"
        return self.exists(f"SELECT 1 FROM pending WHERE store=? AND held=0{where}{kinds} LIMIT 1", (store, *values))

    def implied_directories(self, store: str, prefix: str) -> Sequence[str]:
        """Key segments directly below a prefix under which something deeper is to be made."""
        end = prefix[:-1] + "0" if prefix else chr(0x10FFFF)
        found = self.rows(
            "SELECT DISTINCT substr(rest, 1, instr(rest, '/') - 1) FROM (SELECT substr(key, ?) AS rest FROM pending "
            "WHERE store=? AND key>? AND key<? AND action<>'delete' AND held=0) WHERE instr(rest, '/') > 0",
            (len(prefix) + 1, store, prefix, end),
        )
        return [segment for (segment,) in found]

    def ready(self, store: str, now: float, limit: int) -> Sequence[Pending]:
        """Rows that can be carried out now, oldest first.

        No key is touched while a pending copy still reads from it, and no directory's marker is deleted while something is
        pending below it: stores that keep real directories would refuse or leave it behind. For them too, a file waits until the
        directory that had its name is gone, a directory until the file is, and what is in a new directory until it is made.
        """
        return self._rows(f"store=? AND {_READY} ORDER BY seq LIMIT ?", (store, now, limit))

    def is_empty(self, store: str) -> bool:
        """Nothing is owed to a store."""
        return not self.owes_below(store, "") and not self.attributes.directories(store)

    def stores(self) -> set[str]:
        """Stores to which anything is owed, or has been sent in part."""
        found = self.rows(
            "SELECT store FROM pending UNION SELECT store FROM attributes UNION SELECT store FROM uploads"
        )
        return {store for (store,) in found}

    def count(self, store: str, prefix: str = "") -> tuple[int, int]:
        """How many rows are pending for keys of a store that begin with ``prefix``, and their bytes."""
        where, values = _range(prefix)
        ((count, size),) = self.rows(
            f"SELECT count(*), coalesce(sum(size),0) FROM pending WHERE store=?{where}", (store, *values)
        )
        return int(count), int(size)

    def uses(self, staging: str) -> bool:
        """Whether some row still needs a staging file."""
        return self.exists("SELECT 1 FROM pending WHERE staging=? LIMIT 1", (staging,))

    def is_source(self, store: str, key: str) -> bool:
        """Whether a copy that is owed reads from a key."""
        return self.exists("SELECT 1 FROM pending WHERE store=? AND source=? LIMIT 1", (store, key))

    def restage(self, old: str, new: str) -> None:
        """The rows that need a staging file find its bytes under a new path.

        Those being sent count as replaced: what is sent from the old path may not be what was acknowledged.
        """
        with self.transaction():
            self.change(
                "UPDATE pending SET staging=?, seq=CASE WHEN inflight THEN ? ELSE seq END WHERE staging=?",
                (new, self.next_seq(), old),
            )
            intents.erase(old)
            for row in self._rows("staging=?", (new,)):
                self._stamp(row)
            self.change("UPDATE synced SET staging=? WHERE staging=?", (new, old))
            self.sums.forget(old)

    def has_children(self, store: str, parent: str) -> bool:
        """Whether anything is pending in a directory."""
        return self.exists("SELECT 1 FROM pending WHERE store=? AND parent=? AND held=0 LIMIT 1", (store, parent))

    def parents(self, store: str) -> Collection[str]:
        """Key prefixes of all directories in which something is pending."""
        found = self.rows("SELECT DISTINCT parent FROM pending WHERE store=? AND held=0", (store,))
        return {parent for (parent,) in found}

    def held(self, store: str) -> Sequence[Pending]:
        """Rows of files that were still being written when they were synced."""
        return self._rows("store=? AND held=1", (store,))

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, row: Pending) -> Pending:
        """Set what a key owes; the row there before is replaced, its knowledge of the store's version kept.

        Returns
        -------
        Pending
            The row as written, with its sequence number and base.
        """
        if row.held:
            return self._hold(row)
        with self.lock:
            seq = self.next_seq()
            ((base, inflight),) = self.rows(
                _WRITE,
                (
                    row.store, row.key, row.parent, seq, row.action.value, row.root, escape(row.path), row.base, row.staging,
                    row.source, row.source_version, row.size, json.dumps(row.record) if row.record is not None else None,
                    row.key.endswith(_HELD),
                ),
            )  # fmt: skip
        written = replace(row, seq=seq, base=base, inflight=bool(inflight), attempts=0, error=None)
        self._stamp(written)
        return written

    def _stamp(self, row: Pending) -> None:
        if row.staging is not None:
            if row.key.endswith(_HELD):
                row = replace(row, key=row.key.removesuffix(_HELD), held=True)
            intents.stamp(row, self.owner, str(self.path))

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
        self.forget(store, key + _HELD)

    def describe(self, store: str, key: str, record: Record) -> bool:
        """Give a key that is to be put or copied another attribute record; False if no such thing is owed for it."""
        changed = self.change(
            "UPDATE pending SET record=? WHERE store=? AND key=? AND action IN ('put', 'copy')",
            (json.dumps(record), store, key),
        )
        return bool(changed)

    def forget(self, store: str, key: str) -> None:
        """Owe nothing for a key any more."""
        self.change("DELETE FROM pending WHERE store=? AND key=?", (store, key))

    def claim(self, store: str, now: float, limit: int, spared: Collection[str] = ()) -> Sequence[Pending]:
        """Mark rows that are `ready` as being carried out, except of keys in ``spared``; returns them, oldest first."""
        with self.transaction():
            rows = [row for row in self.ready(store, now, limit) if row.key not in spared]
            self.change_many("UPDATE pending SET inflight=1 WHERE store=? AND key=?", [(r.store, r.key) for r in rows])
        return rows

    def claim_one(self, store: str, key: str, now: float) -> Pending | None:
        """`claim` of what one key owes; None if that is nothing, or not ready."""
        claimed = self.rows(
            f"UPDATE pending SET inflight=1 WHERE store=? AND key=? AND {_READY} RETURNING {_COLUMNS}",
            (store, key, now),
        )
        return _pending(*claimed[0]) if claimed else None

    def reset_inflight(self, store: str, *, told_apart: bool, ended: float = 0.0) -> None:
        """A new holder of the uploader's lock begins: what a dead one had under way is to be done again.

        Removals of it wait until ``ended`` (seconds since the epoch), when no request of the dead one is under way any more: an
        upload that comes after the removal would find nothing that speaks against it.

        The dead owner may have succeeded. ``told_apart``: who then loses the condition on the version that was there before
        can tell the dead owner's upload from that of another writer. Else those rows are not checked any more, nor are those
        that had replaced what was being sent.
        """
        base = f"CASE WHEN base='{UNKNOWN}' THEN NULL ELSE base END" if told_apart else "NULL"
        with self.transaction():
            self.change("UPDATE pending SET not_before=0 WHERE store=?", (store,))
            self.change(
                f"UPDATE pending SET inflight=0, base={base}, error=?, "
                "not_before=CASE WHEN action='delete' THEN ? ELSE 0 END WHERE store=? AND inflight=1",
                (INTERRUPTED, ended, store),
            )

    def rebase(self, row: Pending, version: str) -> None:
        """A row that lost its condition is owed on the condition of another version, at once."""
        self.change(
            "UPDATE pending SET inflight=0, base=?, error=NULL WHERE store=? AND key=? AND seq=?",
            (version, row.store, row.key, row.seq),
        )

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
            self.change("UPDATE pending SET base=? WHERE store=? AND key=?", (version, row.store, row.key + _HELD))
            ended = self.rows(
                "DELETE FROM pending WHERE store=? AND key=? AND seq=? RETURNING record", (row.store, row.key, row.seq)
            )
            if ended:
                return replace(row, record=read_record(ended[0][0]))
            self.change("UPDATE pending SET inflight=0, base=? WHERE store=? AND key=?", (version, row.store, row.key))
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
            if current is not None and current.interrupted:
                error = f"{INTERRUPTED}; {error}"
            self.change(
                "UPDATE pending SET inflight=0, attempts=attempts+?, not_before=?, error=?, "
                "base=CASE WHEN base=? THEN NULL ELSE base END WHERE store=? AND key=?",
                (int(same), not_before if same else 0, error if same else None, UNKNOWN, row.store, row.key),
            )
        return same

    def retry_now(self, store: str) -> None:
        """What failed may be tried again at once."""
        if self.exists("SELECT 1 FROM pending WHERE store=? AND not_before>0 LIMIT 1", (store,)):
            self.change("UPDATE pending SET not_before=0 WHERE store=?", (store,))

    def put_off(self, row: Pending, not_before: float, why: str) -> None:
        """A row that was claimed is not carried out before a time (seconds since the epoch); nothing was done for it."""
        with self.transaction():
            stands = self.change(
                f"UPDATE pending SET inflight=0, not_before=?, error=CASE WHEN action='put' AND error LIKE '{INTERRUPTED}%' "
                "THEN error ELSE ? END WHERE store=? AND key=? AND seq=?",
                (not_before, why, row.store, row.key, row.seq),
            )
            if not stands:
                self.finish(row, row.base)

    # -- staging files on the disk -----------------------------------------------------------------------------------

    def note_synced(self, staging: Iterable[str], *, asked: bool) -> None:
        """The bytes of staging files survive power loss; ``asked``: a program was promised that (fsync)."""
        self.change_many(
            "INSERT INTO synced VALUES (?,?) ON CONFLICT (staging) DO UPDATE SET asked=max(asked, excluded.asked)",
            [(path, int(asked)) for path in staging],
        )

    def is_synced(self, staging: str) -> bool:
        """Whether bytes of a staging file are known to survive power loss."""
        return self.exists("SELECT 1 FROM synced WHERE staging=?", (staging,))

    def forget_synced(self, staging: str, *, unless_asked: bool = False) -> None:
        """A staging file is gone, or was written to since."""
        if self.is_synced(staging):
            self.sums.forget(staging)
            self.change(f"DELETE FROM synced WHERE staging=?{' AND asked=0' if unless_asked else ''}", (staging,))

    def unsynced(self, store: str, before: int, limit: int) -> Sequence[str]:
        """Staging files owed to a store since ``before`` (ns since 1970) that are not known to be on the disk, or have no sum."""
        found = self.rows(
            "SELECT DISTINCT staging FROM pending WHERE store=? AND staging IS NOT NULL AND seq<? "
            "AND (staging NOT IN (SELECT staging FROM synced) OR staging NOT IN (SELECT staging FROM sums)) LIMIT ?",
            (store, before, limit),
        )
        return [path for (path,) in found]

    def not_on_disk(self) -> Sequence[Pending]:
        """Rows with bytes that are not known to survive power loss."""
        return self._rows("staging IS NOT NULL AND held=0 AND staging NOT IN (SELECT staging FROM synced)", ())

    # -- files that another process has open ---------------------------------------------------------------------------

    def tell_writer(self, staging: str, key: str, version: str) -> None:
        """The store now holds bytes of a staging file that another process has open: it will ask for the version."""
        self.change("INSERT OR REPLACE INTO sent VALUES (?,?,?)", (staging, key, version))

    def sent_by_others(self, staging: str) -> Mapping[str, str]:
        """Key → version of what other processes sent of a staging file."""
        return dict(self.rows("SELECT key, version FROM sent WHERE staging=?", (staging,)))

    def forget_sent(self, staging: str) -> None:
        """Nobody has a staging file open any more."""
        if self.exists("SELECT 1 FROM sent WHERE staging=?", (staging,)):
            self.change("DELETE FROM sent WHERE staging=?", (staging,))

    def told_writers(self) -> Sequence[str]:
        """Staging files for which `tell_writer` was called."""
        return [staging for (staging,) in self.rows("SELECT DISTINCT staging FROM sent")]

    def _rows(self, where: str, values: tuple[object, ...]) -> Sequence[Pending]:
        return [_pending(*row) for row in self.rows(f"SELECT {_COLUMNS} FROM pending WHERE {where}", values)]


def _range(prefix: str) -> tuple[str, tuple[str, ...]]:
    """Condition, and its values, for keys that begin with ``prefix``."""
    return (" AND key>=? AND key<?", (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))) if prefix else ("", ())


def _pending(*row: Any) -> Pending:
    """A row of `_COLUMNS`."""
    (*names, action, root, path, base, staging, source, version, size, record, inflight, held, attempts, error) = row
    store, key, parent, seq = names
    try:
        if not all(value is None or isinstance(value, str) for value in (base, staging, source, version, error)):
            raise TypeError("a text is none")
        return Pending(
            store, key.removesuffix(_HELD), parent, int(seq), Action(action), f"{root:s}", unescape(path), base, staging,
            source, version, int(size), read_record(record), bool(inflight), bool(held), int(attempts), error,
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as found:
        raise FsdriverError(f"the journal is damaged here ({found}); {REPAIR}", str(key)) from found
