"""Comparing what is in the cache with the checksums that were noted when it was written.

Works beside processes that use the cache: what they move away meanwhile is no damage. What is damaged goes, and is fetched anew
by who reads it next; who has it open keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from fsdriver.errors import Corrupt

from . import locks
from .blocks import GRAIN
from .cipher import UNIT
from .files import LocalFile, open_sealed, same_file, sealed_files
from .index import Index, Listed
from .keys import ObjectKey
from .partial import Damaged, Partial, map_of, path_of, remove, size_of
from .suspects import checksum_of

STEP: Final = 4 << 20
"""Bytes of a partial file that are compared at a time."""


class State(StrEnum):
    """What was found of one file."""

    GOOD = "good"
    UNKNOWN = "unknown"
    """It has no checksum: it was written on this host rather than fetched, or fetched whole as a small object."""
    DAMAGED = "damaged"
    """It was not what had been written, and has gone (of a partial file: those blocks)."""
    ABSENT = "absent"
    """The index counts a file that is not there: a process died, or the file was removed from outside."""
    MOVED = "moved"
    """It was evicted, replaced or opened for writing meanwhile."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that the index does not know."""

    place: str
    size: int


class Checker:
    """See the module.

    Parameters
    ----------
    objects, guard : Path
        The directory of sealed files, and the mutex of the cache directory.
    index : Index
    """

    def __init__(self, objects: Path, guard: Path, index: Index) -> None:
        self._objects = objects
        self._guard = guard
        self._index = index

    def listed(self) -> list[Listed]:
        """All files that the index has."""
        return self._index.listed()

    def look_at(self, key: ObjectKey, expected: bytes | None = None) -> State:
        """Compare the file of one version of an object, sealed or partial.

        ``expected`` is the `fsdriver.cache.Checksum` of its bytes, for a file of which none was noted.
        """
        one = self._index.listed(key.place)
        if not one:
            return State.MOVED
        if key.cipher is not None and not one[0].partial:
            return self._look_into(one[0], key, expected)
        return self.look(one[0], expected=expected)

    def look(self, one: Listed, *, expected: bytes | None = None, repair: bool = False) -> State:
        """Compare one file; ``repair`` also forgets a row without a file."""
        state = self._look_at_partial(one) if one.partial else self._look_at_sealed(one, expected)
        if state is State.ABSENT and repair:
            with locks.mutex(self._guard):
                if self._is_absent(one):
                    self._index.remove(one.place)
        return state

    def strays(self, *, repair: bool = False) -> Iterator[Stray]:
        """Files without a row; ``repair`` removes them."""
        for path, _ in sealed_files(self._objects):
            place = str(path.relative_to(self._objects))
            if self._index.listed(place):
                continue
            with locks.mutex(self._guard):  # who seals a file, or takes it away, has this
                if self._index.listed(place) or not path.exists():
                    continue
                size = path.stat().st_size
                if repair:
                    path.unlink()
            yield Stray(place, size)

    def _look_at_sealed(self, one: Listed, known: bytes | None) -> State:
        path = self._objects / one.place
        file = open_sealed(path, one.size)
        if file is None:
            with locks.mutex(self._guard):
                if self._is_absent(one):
                    return State.ABSENT
                if not self._is_listed(one) or path.stat().st_size == one.size:
                    return State.MOVED
                self._drop(one)
                return State.DAMAGED
        noted = self._index.checksum(one.place)
        expected = noted or known
        if expected is None:
            return State.UNKNOWN
        if checksum_of(file, one.size, UNIT if one.codec else GRAIN) == expected:
            return State.GOOD
        return self._damaged(one, file, noted)

    def _look_into(self, one: Listed, key: ObjectKey, expected: bytes | None) -> State:
        """Decrypt a whole file, and compare its bytes if it is known what they are to be."""
        path = self._objects / one.place
        file = open_sealed(path, key.stored, key.file)
        if file is None:
            return self._look_at_sealed(one, None)
        noted = self._index.checksum(one.place)
        try:
            found = checksum_of(file, key.size)
        except Corrupt:
            return self._damaged(one, file, noted)
        return State.GOOD if expected in {None, found} else self._damaged(one, file, noted)

    def _damaged(self, one: Listed, file: LocalFile, noted: bytes | None) -> State:
        path = self._objects / one.place
        with locks.mutex(self._guard):
            # Un-sealed for writing, it has lost its name before the first write.
            if not same_file(path, file.descriptor, one.size) or self._index.checksum(one.place) != noted:
                return State.MOVED
            self._drop(one)
        return State.DAMAGED

    def _look_at_partial(self, one: Listed) -> State:
        path = path_of(self._objects, one.place)
        with locks.mutex(self._guard):
            if self._is_absent(one):
                return State.ABSENT
            if not self._is_listed(one):
                return State.MOVED
            try:
                size, unit = size_of(path)
                partial = Partial(path, size, unit=unit)
            except Damaged:
                remove(path)
                self._index.remove(one.place)
                return State.DAMAGED
        state, at = State.GOOD, 0
        for start, end in [*partial.missing(0, partial.size), (partial.size, partial.size)]:
            for first in range(at, start, STEP):
                if partial.read(first, min(first + STEP, start)) is None:
                    state = State.DAMAGED  # those blocks count as missing from here on
            at = end
        return state

    def _is_listed(self, one: Listed) -> bool:
        now = self._index.listed(one.place)
        return bool(now) and now[0].partial == one.partial

    def _is_absent(self, one: Listed) -> bool:
        """Under the mutex: the index still has it, and there is no file."""
        path = path_of(self._objects, one.place) if one.partial else self._objects / one.place
        return self._is_listed(one) and not (path.exists() or (one.partial and map_of(path).exists()))

    def _drop(self, one: Listed) -> None:
        os.unlink(self._objects / one.place)
        self._index.remove(one.place)
