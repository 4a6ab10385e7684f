"""Keeping the byte bound and the free space: which sealed files go, and how one is taken away safely.

Every method needs the mutex of the cache directory. Hits never do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import locks
from .files import LocalFile
from .index import Index
from .partial import path_of, remove
from .stats import Counts

_BATCH: Final = 64


class Evictor:
    """Removes least recently used files, never one that is pinned or that any process has open.

    Parameters
    ----------
    index : Index
    objects : Path
        The directory of sealed files.
    size : int
        Byte bound.
    min_free : int
        Bytes to leave free on the file system.
    counts : Counts
    """

    def __init__(self, index: Index, objects: Path, *, size: int, min_free: int, counts: Counts) -> None:
        self.size = size
        self.min_free = min_free
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
        return status.f_bavail * status.f_frsize - self.min_free

    def within(self, wanted: int) -> bool:
        """Whether ``wanted`` more bytes fit the bound as it is."""
        return self._index.totals()[0] + wanted <= self.size

    def make_room(self, wanted: int, unwritten: int = 0) -> bool:
        """Evict until ``wanted`` more bytes fit the bound and ``unwritten`` of them the disk; False if they cannot."""
        if wanted > self.size:
            return False
        return self._evict_until(lambda: self.within(wanted) and self.free() >= unwritten)

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
        after = (-1.0, "")
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
