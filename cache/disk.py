"""The disk cache of one directory: complete, immutable, version-named files shared by all processes of a user.

`DiskCache` joins the parts: sealed files (`opened`, `sealing`, `locks`), partial ones (`partials`), fills, the index and
eviction.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final

from fsdriver.errors import Corrupt
from fsdriver.threads import Threads

from . import forking, locks
from .adoption import Adopter
from .batches import Batches
from .checking import Checker
from .cipher import Cipher
from .claims import Claims
from .eviction import Evictor, Limits
from .files import LentFile, LocalFile, SealedFile, is_there
from .fill import Fill
from .fills import Fills
from .finishing import Finisher
from .index import Finished, Index
from .keys import Fetch, FetchNow, ObjectKey
from .manual import Manual
from .memory import Budget, Kept
from .opened import OpenFiles
from .pace import Pace
from .partial import Partial
from .partials import Partials
from .places import prepare, unusable
from .reader import Reader
from .scratch import Scratch
from .sealing import move_out
from .space import Space
from .stats import CacheStats, Counts
from .suspects import Suspects
from .tier import MemoryTier
from .troubles import Troubles

READ_AT_ONCE: Final = 128 << 10
"""Bytes of a file that is read as a whole when any of it is wanted: that is less work than a reader of it."""
_WORKERS: Final = 2

_log = logging.getLogger("fsdriver.cache")
_inherited: dict[Path, MemoryTier] = {}
"""In a forked child: what the parent had in memory, for the cache that the child opens on the same directory."""


class DiskCache:
    """Sealed files below ``directory``, and fills that become such.

    Parameters
    ----------
    directory : Path
        Private to one user; gets ``objects/``, ``.staging/`` (never touched here) and ``index.db``.
    size : int
        Bound on the bytes of files of all processes, sealed and partial.
    min_free : int
        Bytes to leave free on the file system.
    entries : int
        Bound on their number.
    memory : int
        Bound on the bytes of small objects that this process keeps in its memory; 0 turns that off.
    cipher : Cipher, optional
        Encrypts the files; those that are encrypted otherwise, or not at all, are not read.
    clock : callable
        Seconds since the epoch, for last use.

    Attributes
    ----------
    manual : Manual
        Pins and removals.
    checker : Checker
        Compares files with their checksums.
    memory : MemoryTier
    streamed : set of str
        Stores whose objects are kept only if somebody asks for a complete file (`Reader.wait_complete`).

    Raises
    ------
    ConfigError
        The directory cannot be made or written, or a newer program wrote its index.
    AccessDenied
        It belongs to another user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int,
        min_free: int,
        entries: int = 2_000_000,
        memory: int = 0,
        cipher: Cipher | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.cipher = cipher
        self.objects = directory / "objects"
        self.staging = directory / ".staging"
        self.counts = Counts()
        self.streamed: set[str] = set()
        troubles = Troubles(directory, self.counts, lambda: self.fills, self.discard)
        self.disk_failed, self.corrupt, self.spoiled = troubles.disk_failed, troubles.corrupt, troubles.spoiled
        self._clock = clock
        self._guard = directory / ".lock"
        self._lock = threading.Lock()
        self._closed = False
        self._workers: ThreadPoolExecutor | None = None
        self.budget = Budget()
        self.kept = Kept()
        self._paces: dict[str, Pace] = {}
        inherited = _inherited.pop(directory, None)
        self.memory = inherited if inherited and inherited.size == memory else MemoryTier(memory, clock)
        prepare(directory, self.objects, self.staging)
        self.claims = Claims(self.objects / ".claims")
        self._scratch = Scratch(self.objects / ".fills", self._guard)
        try:
            self._index = Index(directory / "index.db", self.objects)
            self._scratch.sweep()
            self._suspects = Suspects(self._index, self.objects, self.counts)
        except (sqlite3.OperationalError, PermissionError) as error:
            raise unusable(directory, error) from error
        self._evictor = Evictor(self._index, self.objects, self._guard, Limits(size, entries, min_free), self.counts)
        self._opened = OpenFiles(
            self.objects, self._index, self._suspects, self._evictor, self._guard, self.counts, clock
        )
        self._adopter = Adopter(
            self.objects, self._guard, self._index, self._evictor, self._opened, self.counts, clock, self.disk_failed
        )
        self.fills = Fills(self._opened)
        self.space = Space(self._guard, self._evictor, self._opened)
        files = self.objects, self._guard, self._index
        self.partials = Partials(*files, self._suspects, self._evictor, self._opened, self.space, self._adopter, clock)
        self.checker = Checker(*files)
        self.manual = Manual(self._index, self._evictor, self._opened, self.memory, self._guard)
        self.threads = Threads("fsdriver-fetch")
        self.batches = Batches(self, self._scratch, self._adopter)
        self._finisher = Finisher(
            self.objects, self._scratch, self._adopter, self._opened, lambda: self.workers, self.disk_failed
        )
        forking.watch(self)

    def key(self, store: str, key: str, version: str, size: int) -> ObjectKey:
        """The key under which this cache keeps one version of an object."""
        return ObjectKey(store, key, version, size, self.cipher)

    # -- reading -----------------------------------------------------------------------------------------------------

    def open(self, key: ObjectKey) -> Reader | None:
        """A reader of the sealed file, or None."""
        sealed = self._find(key)
        return None if sealed is None else Reader(self, key, sealed)

    def reader(self, key: ObjectKey, fetch: Fetch, now: FetchNow | None = None) -> Reader:
        """A reader of the sealed file, of the fill under way in this process, or of a new one.

        ``now`` is how small objects are fetched without the event loop.
        """
        return Reader(self, key, self.attach(key, fetch), fetch, now)

    def later(self, key: ObjectKey, fetch: Fetch, now: FetchNow | None = None) -> Reader:
        """As `reader`, but nothing is looked for before it is read; until then eviction does not spare the file."""
        return Reader(self, key, None, fetch, now)

    async def fill(self, key: ObjectKey, fetch: Fetch) -> Reader:
        """A complete reader, after fetching what is missing; errors as `Reader.wait_complete`."""
        reader = self.reader(key, fetch)
        try:
            await reader.wait_complete()
        except BaseException:  # a cancelled wait leaves no reader either
            reader.close()
            raise
        return reader

    def pace(self, store: str) -> Pace:
        """How a store is best asked; found anew by each process."""
        found = self._paces.get(store)
        return self._paces.setdefault(store, Pace(store)) if found is None else found

    def unfinished(self, store: str) -> Sequence[ObjectKey]:
        """What readers of this process have open of a store and is not all here yet."""
        return self.fills.unfinished(store)

    def join(self, key: ObjectKey) -> Reader | None:
        """One more reader of an object that is `unfinished`; None if nobody reads it, or all of it is here."""
        fill = self.fills.join(key)
        return None if fill is None else Reader(self, key, fill)

    def apart(self, key: ObjectKey) -> LocalFile | None:
        """A sealed file to be handed to another process: open read-only, with a shared lock that is its alone.

        Whoever holds the descriptor counts like any other process that has the file open. None of what is encrypted.
        """
        return self._opened.apart(key) if key.cipher is None else None

    def lent(self, key: ObjectKey, file: LentFile) -> Reader:
        """A reader of a file that another cache has sealed and this one does not keep."""
        self.counts.borrowed += 1
        sealed = SealedFile(file, None, key.place)
        sealed.readers = 1
        return Reader(self, key, sealed)

    def remembered(self, key: ObjectKey) -> bytes | None:
        """All bytes of a small object, if they are in memory; counted as a use of its file."""
        if key.size > self.memory.largest:
            return None
        place = key.place
        data = self.memory.get(place)
        if data is not None and self._opened.used(place):
            self.workers.submit(self._opened.flush)
        return data

    def at_hand(self, key: ObjectKey) -> bytes | None:
        """All bytes of an object that is in memory, or small and on the disk; None if it is neither."""
        data = self.remembered(key)
        if data is None and key.size <= READ_AT_ONCE and (data := self._read(key)) is not None:
            self.memory.offer(key.place, data)
            if self._opened.used(key.place):
                self.workers.submit(self._opened.flush)
        return data

    def remember(self, key: ObjectKey, data: bytes) -> None:
        """An object was read whole: keep it in memory if it is small, and others are not worth more."""
        self.memory.offer(key.place, data)

    def contains(self, key: ObjectKey) -> bool:
        """Whether a sealed file is there."""
        return is_there(self.objects / key.place, key.stored)

    # -- changing ----------------------------------------------------------------------------------------------------

    def seal(
        self, key: ObjectKey, path: Path, *, keep_open: bool = False, checksum: bytes | None = None
    ) -> Reader | None:
        """Adopt a finished local file, which nobody may write any more; ``path`` is gone afterwards.

        A file already there for the key is kept instead. One that finds no room is removed (counted as refused).

        Parameters
        ----------
        path : Path
            On the cache's file system.
        keep_open : bool
            Return a reader of the file, even if it found no room.
        checksum : bytes
            `Checksum` of its bytes; needed unless they are on the disk already (fsync).

        Raises
        ------
        Corrupt
            The file has not the size of the key.
        """
        if keep_open:
            return Reader(self, key, self._finisher.seal(key, path, checksum))
        self._finisher.seal_soon(key, path, checksum)
        return None

    def seal_many(self, files: Sequence[tuple[ObjectKey, Path]]) -> None:
        """`seal` of several finished files, under one lock and with one change of the index.

        One that is not what its key says, or that somebody holds exclusively, is left where it is (logged).
        """
        self._finisher.seal_many(files)

    def unseal(self, key: ObjectKey, target: Path, *, reader: Reader | None = None) -> bool:
        """Rename the sealed file to ``target``, to be written there.

        ``reader`` is this process's own: its descriptor then is of the file at ``target``, and so is that of every
        other reader of the key in this process, who will see what is written. Without ``reader`` nobody may have it
        open.

        Returns
        -------
        bool
            False if somebody else has the file open, or it is not in the cache: copy the bytes instead.
        """
        if key.place in self._suspects:
            return False
        if key.cipher is not None:  # what is written is not encrypted: its readers keep the file that they have
            return reader is None and self._finisher.decrypt(key, target, self.discard)
        sealed = reader.sealed if reader is not None else None
        if reader is not None and (sealed is None or sealed.path is None or sealed.pid != os.getpid()):
            return False
        with locks.mutex(self._guard):
            if not move_out(self.objects / key.place, target, None if sealed is None else sealed.file):
                return False
            self._opened.detach(key.place)
            try:
                self._index.remove(key.place)
            except sqlite3.Error as error:
                # A row without a file costs no more than a wrong total until eviction meets it.
                _log.warning("%s: a moved file is still in the cache index: %s", key.label, error)
        return True

    def discard(self, key: ObjectKey) -> None:
        """Remove a file even if open or pinned (its bytes are wrong or unwanted); readers keep their descriptor."""
        with locks.mutex(self._guard):
            self._evictor.forget(key.place)
        self._opened.detach(key.place)
        self.memory.discard(key.place)

    def rekey(self, old: ObjectKey, new: ObjectKey, target: Path) -> None:
        """The bytes of a sealed file are those of another object now; ``target`` is a free name on the same file system."""
        if not self.contains(old):
            return
        if new.cipher is not None:
            self._finisher.rekey(old, new, self.discard)
        elif self.unseal(old, target):
            self.seal(new, target)

    # -- the whole ---------------------------------------------------------------------------------------------------

    def stats(self) -> CacheStats:
        """Totals of the directory and counts of this process."""
        size, entries = self._index.totals()
        return CacheStats(
            bytes=size,
            entries=entries,
            size=self._evictor.limits.size,
            pinned=self._index.pins(),
            open=len(self._opened),
            filling=len(self.fills),
            buffers=self.budget.used + self.kept.used,
            memory=self.memory.stats(),
            encryption=self.cipher.codec if self.cipher else "off",
            unread=self._index.otherwise(self.cipher.codec) if self.cipher else 0,
            **asdict(self.counts),
        )

    def close(self) -> None:
        """Write down last uses, end the fills, close the index. Open readers of sealed files stay usable."""
        self._closed = True
        for fill in self.fills.take_all():
            fill.stop()
            if fill.large is not None and (partial := fill.large.partial) is not None:
                self.partials.leave(fill.key, partial)
        self.threads.close()
        self.batches.hurry()
        if self._workers is not None:
            self._workers.shutdown(wait=True)
            self._workers = None
        self._opened.flush()
        self._scratch.close()
        self._index.close()

    # -- for readers and fills ---------------------------------------------------------------------------------------

    @property
    def workers(self) -> Executor:
        """Threads for writes, renames and evictions."""
        if self._workers is None:
            with self._lock:
                if self._workers is None:
                    self._workers = ThreadPoolExecutor(_WORKERS, "fsdriver-cache")
        return self._workers

    def attach(self, key: ObjectKey, fetch: Fetch) -> SealedFile | Fill:
        """The source of a new reader, counted as used by it."""
        sealed = self._find(key)
        if sealed is not None:
            return sealed
        if key.size == 0:
            file, empty = self._scratch.create(key.file)
            return self._adopter.adopt(Finished(key, empty), file)
        return self.fills.attach(key, lambda: self._begin(key, fetch))

    def release(self, source: SealedFile | Fill) -> None:
        """A reader of ``source`` has closed."""
        if isinstance(source, SealedFile):
            self._opened.release(source)
        else:
            self.fills.release(source)

    def temporary(self) -> tuple[LocalFile, Path]:
        """An empty file on the cache's file system, to be written and then handed to `seal`."""
        file, path = self._scratch.create()
        return file, Path(path)

    def used(self, key: ObjectKey) -> None:
        """Somebody had the object open without reading a byte of its file: others have pages of it."""
        self._opened.used(key.place)

    def leave(self, key: ObjectKey, partial: Partial) -> None:
        """A fill has ended before all was here: its file stays."""
        with contextlib.suppress(RuntimeError):  # the interpreter ends, and takes no more work
            if not self._closed:
                self.workers.submit(self.partials.leave, key, partial)
                return
        self.partials.leave(key, partial)

    def _begin(self, key: ObjectKey, fetch: Fetch) -> Fill:
        stored = key.stored <= self._evictor.limits.size
        if not stored:
            self.counts.uncached += 1
        return Fill(self, key, fetch, stored=stored, streams=key.store in self.streamed)

    def _read(self, key: ObjectKey) -> bytes | None:
        try:
            return self._opened.read(key)
        except Corrupt:
            self.spoiled(key)
            return None

    def _find(self, key: ObjectKey) -> SealedFile | None:
        sealed = self._opened.find(key)
        if self._opened.due:
            self.workers.submit(self._opened.flush)
        return sealed

    def before_fork(self) -> None:
        """No thread is inside the index or the memory tier while the process forks."""
        self._index.before_fork()
        self.memory.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.memory.after_fork_in_parent()
        self._index.after_fork_in_parent()

    def after_fork(self) -> None:
        """In a forked child: threads, fills and database connections are the parent's."""
        self._lock = threading.Lock()
        self._workers = None
        self.fills.after_fork()
        self.claims.after_fork()
        self.budget = Budget()
        self.kept = Kept()
        self.memory.after_fork()
        _inherited[self.directory] = self.memory
        self.threads = Threads("fsdriver-fetch")
        self.batches.after_fork()
        self._opened.after_fork()
        self._index.after_fork()
        self._scratch.after_fork()
