"""A large object of which only parts are here, shared by all processes of the cache: a sparse file, and a map beside it.

The file has the size of the complete cache file, and holes where bytes are missing. The map (``.map``) says what is there::

    0    8 bytes   magic and format
    8    u32       bytes that a grain takes in the file
    12   u8        1: the file has been sealed
    16   u64       bytes of the object
    64   u8        for each grain: 1 if it is in the file
    …    8 bytes   for each grain, from the next multiple of 8 on: XXH3-64 of its bytes in the file

A process that is going to fetch grains locks their bytes of the map (an open file description lock, fcntl(2)): the
kernel drops the lock however the process ends. A grain counts as present only once its bytes and its checksum are
written, and who has not fetched it himself compares the two before he hands out a byte: what a crash or a bad disk left
is found, and fetched again. Who has the file open holds LOCK_SH on it, so that it is not evicted.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import xxhash

from fsdriver.errors import ConfigError, Corrupt

from . import locks
from .blocks import GRAIN
from .files import LocalFile
from .sums import checksums

FOLDER: Final = ".partial"
"""Below ``objects/``, for all partial files."""

_MAGIC: Final = b"fsdpart1"
_KIND: Final = b"fsdpart"
"""Begins the magic of all versions of the format."""
_HEADER: Final = struct.Struct("<8sIIQ")
_ENDED_AT: Final = 12
_STATES: Final = 64
_SUM: Final = 8


def path_of(objects: Path, place: str) -> Path:
    """Where the partial file of a place is."""
    return objects / FOLDER / place.replace("/", "-")


def place_of(path: Path) -> str:
    """The place of a partial file."""
    return path.name.replace("-", "/")


def remove(path: Path) -> None:
    """Take a partial file away; who has it open keeps it, and will not seal it."""
    path.unlink(missing_ok=True)
    map_of(path).unlink(missing_ok=True)


def map_of(path: Path) -> Path:
    """The map of a partial file."""
    return path.with_name(f"{path.name}.map")


def size_of(path: Path) -> tuple[int, int]:
    """Bytes of the object of which a partial file has parts, and those that a grain takes in the file. Raises Damaged."""
    try:
        with open(map_of(path), "rb") as file:
            magic, unit, _, size = _HEADER.unpack(file.read(_HEADER.size))
    except (FileNotFoundError, struct.error) as error:
        raise Damaged(f"{path} has no usable map") from error
    if magic != _MAGIC and not magic.startswith(_KIND):
        raise Damaged(f"{path} is of another format")
    return int(size), int(unit)


class Damaged(Exception):
    """The two files do not belong together, or are not of this format."""


class Partial:
    """One partial file, open in this process. Thread-safe; closed with the last reference.

    The map is read and written with pread(2) and pwrite(2): memory mapped from a file kills the process that touches it
    when the disk is full or fails.

    Parameters
    ----------
    path : Path
        Made, with its map, unless both are there. Call under the mutex of the cache directory.
    size : int
        Bytes of the object.
    make : callable
        The open file of a descriptor (`ObjectKey.file`).
    unit : int, optional
        Bytes that a grain takes in the file, for who can only compare checksums; else what the open file says.

    Raises
    ------
    Damaged
        Remove the files and begin anew.
    ConfigError
        A newer program wrote them: they are left alone.
    OSError

    Attributes
    ----------
    file : LocalFile
        The bytes.
    room : int
        Bytes that this process may write before it looks again what all have written, and what the index counts.
    left : bool
        This process reads it no more.
    """

    def __init__(
        self, path: Path, size: int, make: Callable[[int], LocalFile] = LocalFile, unit: int | None = None
    ) -> None:
        self.path = path
        self.size = size
        self.room = 0
        self.left = False
        self._grains = -(-size // GRAIN)
        self._sums = -(-(_STATES + self._grains) // 8) * 8
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self.file = make(os.open(path, flags, 0o600))
        self._unit = unit or self.file.unit
        stored = size + (self._unit - GRAIN) * self._grains
        self._map = LocalFile(os.open(map_of(path), flags, 0o600))
        if not locks.share(self.file.descriptor):
            raise Damaged(f"{path} is held exclusively")
        length = self._sums + 8 * self._grains
        there = os.fstat(self.file.descriptor).st_size, os.fstat(self._map.descriptor).st_size
        if there == (0, 0):
            os.ftruncate(self.file.descriptor, stored)
            os.ftruncate(self._map.descriptor, length)
            self._map.write(0, memoryview(_HEADER.pack(_MAGIC, self._unit, 0, size)))
        elif self._is_newer():
            raise ConfigError(
                "a newer fsdriver wrote this part of a file: use that, or another cache directory", str(path)
            )
        elif there != (stored, length) or self._map.read(0, _HEADER.size) != _HEADER.pack(_MAGIC, self._unit, 0, size):
            raise Damaged(f"{path} and its map are not of {size} bytes, or of another format")

    def _is_newer(self) -> bool:
        magic = self._map.read(0, len(_MAGIC))
        return magic.startswith(_KIND) and magic > _MAGIC

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def present(self) -> int:
        """Bytes that the grains in the file take there, those of all processes."""
        states = self._map.read(_STATES, self._grains)
        beyond = self._grains * GRAIN - self.size if states.endswith(b"\1") else 0
        return states.count(1) * self._unit - beyond

    @property
    def ended(self) -> bool:
        """Somebody has sealed the file."""
        return self._map.read(_ENDED_AT, 1) == b"\1"

    def end(self) -> None:
        """Tell all who have it open that there is a sealed file now."""
        self._map.write(_ENDED_AT, memoryview(b"\1"))

    def unlock(self) -> None:
        """There is a sealed file to read: who wants that for itself need not wait until this descriptor is closed."""
        locks.release(self.file.descriptor)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Byte ranges that nobody has written yet; ``start`` and ``end`` are borders of grains, or the end of the file."""
        first, count = start // GRAIN, -(-end // GRAIN) - start // GRAIN
        states = self._map.read(_STATES + first, count).ljust(count, b"\0")
        found = []
        at = states.find(0)
        while at >= 0:
            stop = states.find(1, at)
            stop = len(states) if stop < 0 else stop
            found.append(((first + at) * GRAIN, min((first + stop) * GRAIN, self.size)))
            at = states.find(0, stop)
        return found

    # -- who fetches -------------------------------------------------------------------------------------------------

    def claim(self, start: int, end: int) -> bool:
        """Become the one process that fetches a range; False if another one fetches a part of it."""
        return locks.claim(self._map.descriptor, *self._claimed(start, end))

    def unclaim(self, start: int, end: int) -> None:
        """Undo `claim`; without one nothing happens."""
        locks.unclaim(self._map.descriptor, *self._claimed(start, end))

    @staticmethod
    def _claimed(start: int, end: int) -> tuple[int, int]:
        first = start // GRAIN
        return _STATES + first, -(-end // GRAIN) - first

    # -- bytes -------------------------------------------------------------------------------------------------------

    def write(self, start: int, data: memoryview) -> None:
        """Put whole grains into the file (the last one ends with it); they are present afterwards."""
        stored = self.file.encode(start, data)
        first = start // GRAIN
        self.file.pwrite(first * self._unit, stored)
        self.room -= len(stored)
        sums = checksums(stored, self._unit)
        self._map.write(self._sums + _SUM * first, memoryview(sums))
        self._map.write(_STATES + first, memoryview(b"\1" * (len(sums) // _SUM)))

    def read(self, start: int, end: int) -> memoryview | None:
        """Whole grains that are present, compared with their checksums.

        Returns
        -------
        memoryview or None
            None: some are not what was written. They are missing now.
        """
        first, count = start // GRAIN, -(-end // GRAIN) - start // GRAIN
        size = end - start + (self._unit - GRAIN) * count
        data = memoryview(self.file.pread(first * self._unit, size))
        expected = self._map.read(self._sums + _SUM * first, _SUM * count)
        found = checksums(data, self._unit)
        if found == expected:
            try:
                return self.file.decode(start, data)
            except Corrupt:  # whoever changed the bytes changed the checksums, too
                expected = b""
        for at in range(0, _SUM * count, _SUM):
            if at >= len(expected) or found[at : at + _SUM] != expected[at : at + _SUM]:
                self._map.write(_STATES + first + at // _SUM, memoryview(b"\0"))
        return None

    def checksum(self) -> bytes:
        """As `Checksum`, of all bytes."""
        return xxhash.xxh3_128_digest(self._map.read(self._sums, _SUM * self._grains))
