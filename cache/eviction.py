"""Keeping the bounds on bytes, files and free space: which files go, and how one is taken away safely.

Every method but `free`, `within` and `ease` needs the mutex of the cache directory. Hits never do.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import locks
from .files import LocalFile
from .index import Index
from .partial import path_of, remove
from .stats import Counts

_log = logging.getLogger("fsdriver.cache")

_BATCH: Final = 64
_AHEAD: Final = 16
_FIRST: Final = (-1.0, "")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cache directory may take.

    Attributes
    ----------
    size : int
        Most bytes of sealed and partial files.
    entries : int
        Most of these files.
    min_free : int
        Bytes to leave free on the file system.
    """

    size: int
    entries: int
    min_free: int

    @property
    def ease(self) -> int:
        """Bytes below `size` to which is evicted ahead, so that writers find room. Small caches use all they have."""
        return max(0, self.size // 32 - (32 << 20))


class Evictor:
    """Removes least recently used files, never one that is pinned or that any process has open.

    Parameters
    ----------
    index : Index
    objects : Path
        The directory of sealed files.
    guard : Path
        The mutex of the cache directory.
    limits : Limits
    counts : Counts
    """

    def __init__(self, index: Index, objects: Path, guard: Path, limits: Limits, counts: Counts) -> None:
        self.limits = limits
        self._guard = guard
        self._index = index
        self._objects = objects
        self._counts = counts

    def free(self) -> int:
        """Bytes this user may still write on the cache's file system, beyond `min_free`."""
        try:
            status = os.statvfs(self._objects)
        except FileNotFoundError:
            self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)  # the cache was removed under us; begin anew
            status = os.statvfs(self._objects)
        return status.f_bavail * status.f_frsize - self.limits.min_free

    def within(self, wanted: int, files: int = 0) -> bool:
        """Whether so many more bytes and files fit the bounds as they are."""
        size, entries = self._index.totals()
        return size + wanted <= self.limits.size and entries + files <= self.limits.entries

    def make_room(self, wanted: int, files: int = 0, unwritten: int = 0) -> bool:
        """Evict until so many more bytes and files fit the bounds, and ``unwritten`` bytes the disk; False if they cannot."""
        if wanted > self.limits.size:
            return False
        return self._evict_until(lambda: self.within(wanted, files) and self.free() >= unwritten)

    def ease(self) -> None:
        """Evict ahead, a few files at a time, so that others get the mutex between."""
        try:
            going = [True]
            while any(going) and not self.within(self.limits.ease):
                with locks.mutex(self._guard):
                    going = [bool(self.take(place, size)) for _, place, size in self._index.oldest(_FIRST, _AHEAD)]
        except (OSError, sqlite3.Error) as error:
            _log.warning("nothing was evicted ahead: %s", error)

    def take(self, place: str, size: int) -> int | None:
        """Remove one file; the bytes freed, None if somebody has it open."""
        sealed = self._objects / place
        for path in (sealed, path_of(self._objects, place)):
            try:
                file = LocalFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not locks.exclude(file.descriptor):
                return None
            if path == sealed:
                self._unlink(path)
            else:
                remove(path)
            self._index.remove(place)
            self._counts.evictions += 1
            self._counts.evicted_bytes += size
            return size
        self._index.remove(place)
        return 0

    def forget(self, place: str) -> None:
        """Remove a file whether open or not: readers keep their descriptor."""
        self._unlink(self._objects / place)
        remove(path_of(self._objects, place))
        self._index.remove(place)

    def _evict_until(self, enough: Callable[[], bool]) -> bool:
        after = _FIRST
        while not enough():
            batch = self._index.oldest(after, _BATCH)
            if not batch:
                return False
            for used, place, size in batch:
                after = (used, place)
                if self.take(place, size) and enough():
                    return True
        return True

    @staticmethod
    def _unlink(path: Path) -> None:
        path.unlink(missing_ok=True)
        try:
            path.parent.rmdir()
        except OSError:
            return  # other versions of the key are there
