"""The partial files of a cache directory: opened, counted in the index, sealed, and kept when nobody reads them."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fsdriver.errors import NoSpace

from . import locks
from .adoption import Adopter, as_os_error, unkept
from .eviction import Evictor
from .files import SealedFile, same_file
from .index import Finished, Index
from .keys import ObjectKey
from .opened import OpenFiles
from .partial import Damaged, Partial, map_of, path_of, remove
from .space import Space
from .suspects import Suspects

_STEP: Final = 64 << 20
"""Bytes that are counted in advance: the index is not changed for every block."""
_ROOM: Final = 16 << 20
"""Bytes that one process writes before it looks what others have written."""

_log = logging.getLogger("fsdriver.cache")


class Partials:
    """See the module. All but `write` wait for the mutex of the cache directory.

    Parameters
    ----------
    objects, guard : Path
        The directory of sealed files, and the mutex of the cache directory.
    index : Index
    suspects : Suspects
    evictor : Evictor
    opened : OpenFiles
    space : Space
    adopter : Adopter
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self,
        objects: Path,
        guard: Path,
        index: Index,
        suspects: Suspects,
        evictor: Evictor,
        opened: OpenFiles,
        space: Space,
        adopter: Adopter,
        clock: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._guard = guard
        self._index = index
        self._suspects = suspects
        self._evictor = evictor
        self._opened = opened
        self._space = space
        self._adopter = adopter
        self._clock = clock

    def open(self, key: ObjectKey) -> Partial | None:
        """What is here of an object, perhaps nothing; None if the whole has been sealed meanwhile.

        Raises
        ------
        OSError
        """
        path = path_of(self._objects, key.place)
        if key.place in self._suspects:
            self._suspects.cleared(key)
        with self._guarded():
            if (self._objects / key.place).exists():
                return None
            if not self._evictor.make_room(0, 1):
                raise NoSpace("as many files as cache.entries allows are open or pinned", key.label)
            self._index.hold(key, 0, self._clock())
            path.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
            try:
                return Partial(path, key.size, key.file)
            except Damaged as error:
                _log.warning("%s; %s is fetched anew", error, key.label)
                remove(path)
                return Partial(path, key.size, key.file)

    def ready(self, partial: Partial, size: int) -> bool:
        """Whether `write` of ``size`` bytes would wait for nobody."""
        size = partial.file.extent(0, size)[1]
        return size <= partial.room and self._space.ample(size)

    def write(self, key: ObjectKey, partial: Partial, start: int, data: memoryview) -> None:
        """Keep whole grains.

        Raises
        ------
        NoSpace
            Neither the byte bound nor the free space allow it.
        OSError
        """
        at, size = partial.file.extent(start, len(data))
        if size > partial.room and not self._reserve(key, partial, size):
            raise NoSpace("all of cache.size is in use by files that are open or pinned", key.label)
        if not self._space.allocate(partial.file, at, size):
            raise NoSpace("the cache's file system has no more free space than cache.min_free", key.label)
        partial.write(start, data)

    def seal(self, key: ObjectKey, partial: Partial) -> SealedFile:
        """All of it is here. A file that cannot be kept stays readable until its last reader closes."""
        sealed = None
        try:
            with locks.mutex(self._guard):
                if same_file(partial.path, partial.file.descriptor, key.stored):
                    sealed = self._admit(key, partial)
        except (OSError, sqlite3.Error) as error:
            self._adopter.failed(key, as_os_error(error))
        self._evictor.ease()
        # Without one, another process was first, or the file was taken away.
        sealed = sealed or self._opened.again(key) or unkept(key.file(partial.file.duplicate()), key)
        partial.unlock()
        return sealed

    def _admit(self, key: ObjectKey, partial: Partial) -> SealedFile:
        map_of(partial.path).unlink(missing_ok=True)
        file = key.file(os.open(partial.path, os.O_RDONLY | os.O_CLOEXEC))
        locks.share(file.descriptor)
        finished = Finished(key, str(partial.path), partial.checksum())
        sealed = self._adopter.admit(finished, file, self._index.size(key.place))
        partial.end()
        return sealed

    def leave(self, key: ObjectKey, partial: Partial) -> None:
        """It is read no more in this process: count what is really there, if others don't read it either."""
        if partial.left:
            return
        partial.left = True
        try:
            with locks.mutex(self._guard):
                if partial.ended or not same_file(partial.path, partial.file.descriptor):
                    partial.unlock()
                    return
                if not locks.exclude(partial.file.descriptor):
                    return
                sealed = (self._objects / key.place).exists()
                present = 0 if sealed else partial.present
                if present:
                    self._index.resize(key.place, present, self._clock())
                else:
                    remove(partial.path)
                    if not sealed:
                        self._index.remove(key.place)
                partial.unlock()
        except (OSError, sqlite3.Error) as error:
            _log.warning("%s: what the cache has of it is counted too high: %s", key.label, error)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with locks.mutex(self._guard):
                yield
        except sqlite3.Error as error:
            raise as_os_error(error) from error

    def _reserve(self, key: ObjectKey, partial: Partial, size: int) -> bool:
        """Count ``size`` more bytes, before they are written."""
        present = partial.present
        needed = min(present + size, key.stored)
        self._opened.flush()
        for wanted in (min(needed + _STEP, key.stored), needed):
            with self._guarded():
                counted = self._index.size(key.place)
                if counted < wanted and self._evictor.make_room(wanted - counted):
                    self._index.hold(key, wanted, self._clock())
                    counted = wanted
            if counted >= needed:
                partial.room = max(size, min(counted - present, _ROOM))
                return True
        return False
