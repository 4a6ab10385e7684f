"""Open local files whose descriptor lives exactly as long as somebody uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from string import hexdigits
from typing import ClassVar, Final

from . import locks
from .blocks import GRAIN

WRITE_STEP: Final = 64 << 10
"""Bytes of one pwrite(2), and so of the folios that ext4 takes for them. Larger ones are cut from memory that nobody has used
for long: up to six times the processor time, most of all in virtual machines whose host must first find that memory."""


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write at ``offset`` until nothing is left, in steps of `WRITE_STEP`."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(descriptor, rest[:WRITE_STEP], offset)
        rest, offset = rest[done:], offset + done


class LocalFile:
    """A descriptor closed when the last reference goes.

    Readers in other threads take a reference for the time of one pread, so a close never hands their descriptor
    number to another file under them.

    Attributes
    ----------
    plain : bool
        The bytes on the disk are those of the object: the descriptor may be given away to be read or mapped.
    unit : int
        Bytes that a grain takes on the disk.
    """

    __slots__ = ("descriptor",)
    plain: ClassVar[bool] = True
    unit: ClassVar[int] = GRAIN

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def pread(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes as they are on the disk; less only at the end of the file."""
        data = os.pread(self.descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        done = len(data)
        while done < size and (data := os.pread(self.descriptor, size - done, offset + done)):
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """All of ``data``, as it is to be on the disk; see `write_all`."""
        write_all(self.descriptor, data, offset)

    read = pread
    """Bytes of the object."""
    write = pwrite
    """Bytes of the object."""

    def encode(self, offset: int, data: memoryview) -> memoryview:
        """What is on the disk for whole grains of the object, from ``offset`` on."""
        return data

    def decode(self, offset: int, stored: memoryview) -> memoryview:
        """The opposite of `encode`. Raises Corrupt."""
        return stored

    def extent(self, offset: int, size: int) -> tuple[int, int]:
        """Where whole grains of the object lie on the disk: offset and bytes."""
        return offset, size

    def duplicate(self) -> int:
        """A descriptor of its own (offset and lock) on the same file, even if its name has gone; LOCK_SH is held on it."""
        descriptor = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        locks.share(descriptor)
        return descriptor


class LentFile(LocalFile):
    """A sealed file of another user's cache, which this process may not open by itself.

    Its lock was taken by who handed it over, and ends with the last descriptor of it.
    """

    __slots__ = ()

    def duplicate(self) -> int:
        """A descriptor that shares offset and lock with this one, of which nobody moves the offset."""
        return os.dup(self.descriptor)


class SealedFile:
    """A complete, immutable file, held with LOCK_SH and shared by all readers of this process.

    Attributes
    ----------
    path : str or None
        None once it has no name (any more).
    place : str
        Its name below ``objects/``.
    readers : int
        Counted by `DiskCache`, under its lock.
    """

    __slots__ = ("file", "path", "pid", "place", "readers")

    def __init__(self, file: LocalFile, path: str | None, place: str) -> None:
        self.file = file
        self.path = path
        self.place = place
        self.pid = os.getpid()
        self.readers = 0


def open_sealed(path: str | Path, size: int, make: Callable[[int], LocalFile] = LocalFile) -> LocalFile | None:
    """Open a sealed file read-only under LOCK_SH; None if it is not there, is being taken away, or has another size.

    ``size`` is that on the disk; ``make`` gives the open file of a descriptor.
    """
    try:
        file = make(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not locks.share(file.descriptor):
        return None
    # Between open and lock it may have been evicted or un-sealed: the name must still be this file's.
    return file if same_file(path, file.descriptor, size) else None


def sealed_files(objects: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The sealed files below ``objects/``, beside processes that remove files and directories there."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for directory, below, names in os.walk(objects, onerror=failed):
        depth = len(Path(directory).relative_to(objects).parts)
        if depth == 0:
            below[:] = [name for name in below if name[0] in hexdigits]
        for name in names if depth == 2 else ():
            path = Path(directory, name)
            with suppress(FileNotFoundError):
                yield path, path.stat()


def is_there(path: str | Path, size: int) -> bool:
    """Whether ``path`` names something of this size."""
    try:
        return os.stat(path).st_size == size
    except (FileNotFoundError, NotADirectoryError):
        return False


def same_file(path: str | Path, descriptor: int, size: int | None = None) -> bool:
    """Whether ``path`` names the open file (and that has ``size`` bytes)."""
    try:
        named = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    opened = os.fstat(descriptor)
    return named.st_ino == opened.st_ino and named.st_dev == opened.st_dev and size in (None, opened.st_size)
