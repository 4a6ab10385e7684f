"""What a power failure left of bytes that were closed and not synced: never sent over an object that is good.

After a boot, rows of the journal may name staging files that the machine had not written to its disk before it went down:
missing, cut short, or with ranges of old bytes or none. Rows whose files are known to be on the disk (`Journal.note_synced`) are
left as they are. Of the others, a new file of the right size is kept; a file that would replace an object is not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fsdriver import names
from fsdriver.backends.base import ABSENT
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Pending
from fsdriver.writeback.staging import Staging
from fsdriver.writeback.waiting import Looks

log = logging.getLogger(__name__)

SYNCED_AFTER: Final = 5.0
"""Seconds after which bytes that are still owed are written to the disk, as ext4 does with names (ext4(5), ``commit``)."""
TOGETHER: Final = 256
"""Files of one such round."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Doubtful:
    """What `after_boot` found.

    Attributes
    ----------
    missing : int
        Rows whose bytes never reached the disk, or are in the store already: the version in the store shows.
    set_aside : int
        Rows whose bytes may be damaged: kept under a name of their own, and the version in the store shows.
    """

    missing: int = 0
    set_aside: int = 0


def boot_id() -> str:
    """Name of this run of the machine; empty where the system gives none, and power failures are not noticed."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def after_boot(journal: Journal, boot: str) -> Doubtful:
    """Look at what is owed, if the machine was started since the journal was used last."""
    found = Doubtful()
    with journal.transaction():
        known = [str(name) for (name,) in journal.rows("SELECT id FROM boot")]
        if known == [boot] or not boot:
            return found
        journal.change("DELETE FROM boot")
        journal.change("INSERT INTO boot VALUES (?)", (boot,))
        if not known:
            return found
        for row in journal.not_on_disk():
            _settle(journal, row, found)
    if found.missing or found.set_aside:
        log.warning(
            "the machine was started anew; of what had been closed and not synced, %d changes never reached the disk or are "
            "in the store, and %d may be damaged and are kept beside the file as NAME.unsynced-…",
            found.missing, found.set_aside,
        )  # fmt: skip
    return found


def _settle(journal: Journal, row: Pending, found: Doubtful) -> None:
    try:
        size = os.stat(row.staging or "").st_size
    except FileNotFoundError:
        size = None
    if size == row.size and row.never_stored:
        return
    journal.forget(row.store, row.key)
    _forget_record(journal, row)
    if not size:
        found.missing += 1
        return
    kept = _aside(row, size)
    journal.write(kept)
    found.set_aside += 1
    log.warning("%s: its last change was not synced; what is there of it is kept as %s", row.path, kept.path)


def _forget_record(journal: Journal, row: Pending) -> None:
    parent, _, name = row.path.rpartition("/")
    change = journal.attributes.of_name(row.store, row.root, parent, name)
    if change is not None:
        journal.attributes.finish([change])


def _aside(row: Pending, size: int) -> Pending:
    suffix = f".unsynced-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%S')}-{row.seq}"
    path = names.beside(row.path, suffix)
    key = names.to_key(path, f"{row.root}/" if row.root else "")
    return replace(row, key=key, path=path, base=ABSENT, size=size, inflight=False, held=False)


class LateSync:
    """Writes what the store does not take at once to the disk after a while, though nobody has asked for it.

    Parameters
    ----------
    store : str
        Identity of the backend.
    journal : Journal
    staging : Staging
    spawn : callable
        Runs a coroutine on the event loop.
    """

    def __init__(
        self, store: str, journal: Journal, staging: Staging, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._store = store
        self._journal = journal
        self._staging = staging
        self._spawn = spawn
        self._busy = False
        self._looks = Looks(SYNCED_AFTER)

    def look(self) -> None:
        """Begin a round if there is anything to do; on the event loop."""
        if self._busy or self._looks.pause:
            return
        before = time.time_ns() - int(SYNCED_AFTER * 1e9)
        with self._looks.look():
            waiting = self._journal.unsynced(self._store, before, TOGETHER)
        if waiting:
            self._busy = True
            self._spawn(self._work(waiting, before))

    async def _work(self, paths: Sequence[str], before: int) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._write, paths, before)
        except OSError as error:
            log.warning("what waits for the store cannot be written to the disk: %s", error)
        finally:
            self._busy = False
            if len(paths) == TOGETHER:
                self._looks.again()

    def _write(self, paths: Sequence[str], before: int) -> None:
        done = set(self._staging.sync_paths(paths))
        with self._journal.transaction():
            # What was written and closed again meanwhile may not be on the disk.
            stand = done.intersection(self._journal.unsynced(self._store, before, 2 * TOGETHER))
            self._journal.note_synced(stand, asked=False)
        for path in stand:
            self._journal.sums.note(path)
        self._journal.make_durable()
