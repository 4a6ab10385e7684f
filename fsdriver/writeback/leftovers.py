"""What processes that died left behind: staging files that nobody is owed, and uploads in parts that nobody completes.

Both are marked with their owner. Whoever becomes the uploader of a store ends what belongs to an owner that is gone for
certain; what belongs to a process of another PID namespace, which cannot be seen from here, is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from fsdriver.backends.store import Store
from fsdriver.errors import FsdriverError, NotFound
from fsdriver.writeback import intents
from fsdriver.writeback.catalog import Catalog
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.staging import Staging, owner

log = logging.getLogger(__name__)

STRAGGLING: Final = 2.0
"""Seconds after the end of a process in which its requests may still be carried out."""
_START_TIME: Final = 19
"""Field of /proc/PID/stat after the name in parentheses: when the process began (proc_pid_stat(5), field 22)."""


def is_dead(name: str) -> bool:
    """Whether the process with this `owner` name has ended; False where that cannot be told."""
    mine, theirs = owner().split("."), name.split(".")
    if len(theirs) != len(mine) or theirs[0] != mine[0]:
        return False
    try:
        with open(f"/proc/{int(theirs[1], 16)}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0] in {b"Z", b"X"} or int(fields[_START_TIME]) != int(theirs[2], 16)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except ValueError:
        return False


def take_over(backend: Store, journal: Journal, staging: Staging) -> None:
    """Begin where the process stood that uploaded to a store and is dead."""
    able = backend.capabilities
    told_apart = able.conditional_put and able.strong_versions
    journal.reset_inflight(backend.identity, told_apart=told_apart, ended=time.time() + STRAGGLING)
    let_go_of_held(staging, journal, backend.identity)
    sweep_staging(staging, journal)
    journal.sums.prune()


def let_go_of_held(staging: Staging, journal: Journal, store: str) -> None:
    """What dead processes had synced and not closed is to be sent: as it is now, for they may have written on."""
    for row in journal.held(store):
        where = row.staging or ""
        now = row
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(where)
            record = None if row.record is None else row.record | {"mtime": status.st_mtime_ns}
            now = replace(row, size=status.st_size, record=record)
        if not where or not staging.is_open(where):
            journal.let_go(now)


def is_left(name: str) -> bool:
    """Whether the process that made a staging file of this name (`Staging.name`) has ended."""
    return is_dead(name.partition("-")[2].rpartition("-")[0])


def sweep_staging(staging: Staging, journal: Journal) -> int:
    """Remove staging files of dead processes that no row needs and nobody has open; returns how many.

    Those that another catalog owes stay, and are counted in `Staging.disowned` if that catalog is gone.
    """
    for told in journal.told_writers():
        if not staging.is_open(told):
            journal.forget_sent(told)
    removed = disowned = 0
    for entry in os.scandir(staging.directory):
        if not is_left(entry.name):
            continue
        with contextlib.suppress(FileNotFoundError), journal.transaction():
            if not journal.uses(entry.path) and (intent := intents.read(entry.path)) and intent.owner != journal.owner:
                disowned += not intents.is_alive(intent, journal.path)
                continue
            lock = None if journal.uses(entry.path) else staging.lock_exclusive(entry.path)
            if lock is not None:
                staging.remove(entry.path)
                os.close(lock)
                removed += 1
    staging.disowned = disowned
    if disowned:
        log.warning(
            "%d files in %s were acknowledged, and the catalog that knew of them is gone; 'fsdriver fsck' has them uploaded",
            disowned,
            staging.directory,
        )
    if removed:
        log.info(
            "%d files that were being written when their process died were removed: they had not been closed", removed
        )
    return removed


class UploadLog:
    """Notes uploads in parts in the catalog, until they end.

    Parameters
    ----------
    catalog : Catalog
    store : str
        Identity of the backend.
    """

    def __init__(self, catalog: Catalog, store: str) -> None:
        self._catalog = catalog
        self._store = store

    def begun(self, key: str, handle: str) -> None:
        """The store has opened an upload."""
        self._catalog.change("INSERT OR REPLACE INTO uploads VALUES (?,?,?,?)", (self._store, key, handle, owner()))

    def ended(self, key: str, handle: str) -> None:
        """It was completed, or its parts were removed."""
        self._catalog.change("DELETE FROM uploads WHERE store=? AND key=? AND handle=?", (self._store, key, handle))

    def living(self, key: str) -> Collection[str]:
        """Handles of uploads of a key that were begun by processes which may be alive."""
        return [handle for name, handle, whose in self.under_way() if name == key and not is_dead(whose)]

    def under_way(self) -> Sequence[tuple[str, str, str]]:
        """(key, handle, owner) of every upload that has not ended."""
        found = self._catalog.rows("SELECT key, handle, owner FROM uploads WHERE store=?", (self._store,))
        return [(key, handle, whose) for key, handle, whose in found]


async def abort_uploads(backend: Store, catalog: Catalog) -> None:
    """Remove the parts that dead processes sent to a store."""
    uploads = UploadLog(catalog, backend.identity)
    for key, handle, whose in uploads.under_way():
        if not is_dead(whose):
            continue
        try:
            await backend.abort_multipart(key, handle)
        except NotFound:
            pass  # completed or removed
        except FsdriverError as error:
            log.warning("%s: the parts a dead process sent stay until the next start: %s", key, error)
            continue
        uploads.ended(key, handle)
        log.info("%s: the parts that a dead process sent were removed", key)
