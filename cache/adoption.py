"""Giving finished files their place among the sealed ones, one or many at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from . import locks
from .eviction import Evictor
from .files import LocalFile, SealedFile, open_sealed
from .index import Finished, Index
from .keys import ObjectKey
from .opened import OpenFiles
from .sealing import move_in
from .stats import Counts


class Adopter:
    """Moves finished files into ``objects/`` and the index, evicting others where the bounds ask for it.

    Parameters
    ----------
    objects, guard : Path
        The directory of sealed files, and the mutex of the cache directory.
    index : Index
    evictor : Evictor
    opened : OpenFiles
    counts : Counts
    clock : callable
        Seconds since the epoch.
    failed : callable
        Told of a file that the disk or the index did not take.
    """

    def __init__(
        self,
        objects: Path,
        guard: Path,
        index: Index,
        evictor: Evictor,
        opened: OpenFiles,
        counts: Counts,
        clock: Callable[[], float],
        failed: Callable[[ObjectKey, OSError], None],
    ) -> None:
        self._root = str(objects)
        self._guard = guard
        self._index = index
        self._evictor = evictor
        self._opened = opened
        self._counts = counts
        self._clock = clock
        self.failed = failed

    def adopt(self, one: Finished, file: LocalFile) -> SealedFile:
        """Seal an open, shared-locked file; one that cannot be kept stays readable until its last reader closes."""
        try:
            with locks.mutex(self._guard):
                sealed = self.admit(one, file)
            self._evictor.ease()
        except (OSError, sqlite3.Error) as error:
            self.failed(one.key, as_os_error(error))
            Path(one.path).unlink(missing_ok=True)
            return unkept(file, one.key)
        return sealed

    def admit(self, one: Finished, file: LocalFile, counted: int = 0) -> SealedFile:
        """As `adopt`, under the mutex of the cache directory; ``counted`` of its bytes are in the index already."""
        key = one.key
        target = f"{self._root}/{key.place}"
        present = open_sealed(target, key.stored, key.file)
        if present is not None:
            Path(one.path).unlink(missing_ok=True)
            file = present
        elif self._make_room(key.stored - counted, 0 if counted else 1):
            self._index.add([one], self._clock())
            if not move_in(one.path, target):
                self._index.remove(key.place)
                return unkept(file, key)
        else:
            self._counts.refused += 1
            Path(one.path).unlink(missing_ok=True)
            self._index.remove(key.place)
            return unkept(file, key)
        self._counts.sealed += 1
        return self._opened.register(file, target, key.place)

    def adopt_many(self, written: Sequence[Finished]) -> list[bool]:
        """Seal files that nobody has open: one transaction of the index for all of them.

        Returns
        -------
        list of bool
            Whether each is in its place now; the others are removed.
        """
        try:
            with locks.mutex(self._guard):
                done = {one.key.place for one in self._with_room(written) if self._place(one)}
            self._evictor.ease()
        except (OSError, sqlite3.Error) as error:
            for one in written:
                self.failed(one.key, as_os_error(error))
            done = set()
        result = [one.key.place in done for one in written]
        for one, placed in zip(written, result, strict=True):
            if not placed:
                Path(one.path).unlink(missing_ok=True)
        self._counts.sealed += len(done)
        return result

    def _with_room(self, written: Sequence[Finished]) -> Sequence[Finished]:
        """Those that find room, recorded in the index."""
        if self._make_room(sum(one.key.stored for one in written), len(written)):
            self._index.add(written, self._clock())
            return written
        kept = []
        for one in written:
            if self._make_room(one.key.stored, 1):
                self._index.add([one], self._clock())
                kept.append(one)
            else:
                self._counts.refused += 1
        return kept

    def _place(self, one: Finished) -> bool:
        """Another process may have been first: its file stays, others may have that open."""
        target = f"{self._root}/{one.key.place}"
        try:
            if os.stat(target).st_size == one.key.stored:
                os.unlink(one.path)
                return True
        except (FileNotFoundError, NotADirectoryError):
            pass  # the usual case
        if move_in(one.path, target):
            return True
        self._index.remove(one.key.place)
        return False

    def _make_room(self, size: int, files: int) -> bool:
        if self._evictor.within(size, files):
            return True
        self._opened.flush()
        return self._evictor.make_room(size, files)


def unkept(file: LocalFile, key: ObjectKey) -> SealedFile:
    """A finished file without a place, for those who read it now."""
    sealed = SealedFile(file, None, key.place)
    sealed.readers = 1
    return sealed


def as_os_error(error: OSError | sqlite3.Error) -> OSError:
    """What the index could not do, as an error of the disk."""
    return error if isinstance(error, OSError) else OSError(0, f"index: {error}")
