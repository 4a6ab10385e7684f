"""The sealed files this process has open, one descriptor each, and when they were last used."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import locks
from .eviction import Evictor
from .files import LocalFile, SealedFile, is_there, open_sealed, same_file
from .index import Index
from .keys import ObjectKey
from .stats import Counts
from .suspects import INLINE, Suspects

_USES: Final = 512
_USES_SECONDS: Final = 60.0

_log = logging.getLogger("fsdriver.cache")


class OpenFiles:
    """Finds, shares and counts sealed files. Its lock guards the tables only, never a system call or the index.

    Last uses (the time of the last close) are kept in memory and written in batches: at 512 files, after a minute,
    before an eviction, at the end.

    Parameters
    ----------
    objects : Path
        The directory of sealed files.
    index : Index
    suspects : Suspects
    evictor : Evictor
    guard : Path
        The mutex of the cache directory.
    counts : Counts
        ``hits`` and ``misses`` are counted here.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self,
        objects: Path,
        index: Index,
        suspects: Suspects,
        evictor: Evictor,
        guard: Path,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        # Text: joining Paths takes as long as the open itself.
        self._root = str(objects)
        self._index = index
        self._suspects = suspects
        self._evictor = evictor
        self._guard = guard
        self._counts = counts
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, SealedFile] = {}
        self._uses: dict[str, float] = {}
        self._since = clock()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def due(self) -> bool:
        """Whether `flush` should be called soon."""
        return len(self._uses) >= _USES or self._clock() - self._since >= _USES_SECONDS

    def find(self, key: ObjectKey) -> SealedFile | None:
        """The sealed file, counted as used by one more reader."""
        place = key.place
        with self._lock:
            sealed = self._open.get(place)
            if sealed is not None:
                sealed.readers += 1
        if sealed is not None:
            if sealed.path is not None and same_file(sealed.path, sealed.file.descriptor):
                with self._lock:
                    self._counts.hits += 1
                return sealed
            # Another process has found it damaged, and taken it away.
            self.release(sealed)
            self._forget(sealed)
        sealed = self.again(key)
        with self._lock:
            if sealed is None:
                self._counts.misses += 1
            else:
                self._counts.hits += 1
        return sealed

    def again(self, key: ObjectKey) -> SealedFile | None:
        """As `find`, for who is counted already; not under the mutex. A large file that is suspect is left to `Partials.open`."""
        if self._unproved(key):
            return None
        path = f"{self._root}/{key.place}"
        file = open_sealed(path, key.stored, key.file)
        if file is None and is_there(path, key.stored):
            file = self._contested(path, key)
        return None if file is None else self.register(file, path, key.place)

    def read(self, key: ObjectKey) -> bytes | None:
        """All bytes of a sealed file that need not stay open; None if it is not there or must be looked at first."""
        if self._suspects:
            return None
        file = open_sealed(f"{self._root}/{key.place}", key.stored, key.file)
        if file is None:
            return None
        data = file.read(0, key.size)
        with self._lock:
            self._counts.hits += 1
        return data

    def apart(self, key: ObjectKey) -> LocalFile | None:
        """The sealed file, opened once more under a shared lock of its own; neither counted nor shared.

        A large file that is suspect is None, as with `again`.
        """
        if self._unproved(key):
            return None
        return open_sealed(f"{self._root}/{key.place}", key.stored, key.file)

    def register(self, file: LocalFile, path: str, place: str) -> SealedFile:
        """The one open file of a place: this one, or that which another thread registered first."""
        with self._lock:
            sealed = self._open.get(place)
            if sealed is None:
                sealed = self._open[place] = SealedFile(file, path, place)
            sealed.readers += 1
            return sealed

    def release(self, sealed: SealedFile) -> None:
        """One reader less; the descriptor closes with the last."""
        with self._lock:
            sealed.readers -= 1
            if sealed.readers <= 0 and self._open.get(sealed.place) is sealed:
                self._uses[sealed.place] = self._clock()
                del self._open[sealed.place]

    def used(self, place: str) -> bool:
        """A file was of use without being open here; whether `flush` is due."""
        now = self._clock()
        with self._lock:
            self._uses[place] = now
        return len(self._uses) >= _USES or now - self._since >= _USES_SECONDS

    def _forget(self, sealed: SealedFile) -> None:
        with self._lock:
            if self._open.get(sealed.place) is sealed:
                del self._open[sealed.place]
                sealed.path = None

    def detach(self, place: str) -> None:
        """Later readers shall not share the open file: its name has gone."""
        with self._lock:
            sealed = self._open.pop(place, None)
            if sealed is not None:
                sealed.path = None

    def flush(self) -> None:
        """Write last uses to the index."""
        with self._lock:
            uses, self._uses = self._uses, {}
            self._since = self._clock()
        if not uses:
            return
        try:
            self._index.touch(uses)
        except sqlite3.Error as error:
            _log.warning("last uses were not written to the cache index: %s", error)

    def _contested(self, path: str, key: ObjectKey) -> LocalFile | None:
        """A file that is there, but could not be had.

        Our processes hold the exclusive lock under the mutex only. Any other holder is a process of another user, which was
        handed the file. That keeps it, and the place is free for a new one.
        """
        with locks.mutex(self._guard):
            file = open_sealed(path, key.stored, key.file)
            if file is None and is_there(path, key.stored):
                _log.warning("%s: its cache file is locked by a process of another user, and left to that", key.label)
                self._evictor.forget(key.place)
        return file

    def _unproved(self, key: ObjectKey) -> bool:
        suspects = self._suspects
        return bool(suspects) and key.place in suspects and (key.size > INLINE or not suspects.cleared(key))

    def after_fork(self) -> None:
        """In a forked child: descriptors and their locks are shared with the parent, so new readers open their own."""
        self._lock = threading.Lock()
        self._open = {}
        self._uses = {}
