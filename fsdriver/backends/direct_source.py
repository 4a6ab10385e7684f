"""What a direct write reads from, in pieces that go into its buffers: memory, or a local file."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Protocol

from fsdriver.backends.direct_calls import O_DIRECT, PAGE, alignment, clone, is_cached
from fsdriver.backends.source import Source, check_settled, path_of
from fsdriver.errors import Corrupt


class Origin(Protocol):
    """A source while it is read; from several threads.

    Attributes
    ----------
    size : int
    """

    size: int

    def load(self, buffer: memoryview, start: int, size: int) -> None:
        """Fill the first ``size`` bytes of a buffer from offset ``start``; what follows them in it is undefined."""

    def clone_to(self, target: int) -> bool:
        """Have a new file share the source's blocks instead; False where that cannot be."""


class _Memory:
    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    def load(self, buffer: memoryview, start: int, size: int) -> None:
        buffer[:size] = self._view[start : start + size]

    def clone_to(self, target: int) -> bool:
        return False


class _File:
    """A file, whose pages are neither brought into the page cache nor driven out of it.

    What the page cache has is read there (what was just written need not go to the disk first), the rest past it. Where the
    file system refuses that, pages that were not all there before are let go again.
    """

    def __init__(self, source: Source, cached: int, direct: int | None, size: int) -> None:
        self._source = source
        self._cached = cached
        self._direct = direct
        self._unit = PAGE if direct is None else alignment(direct)
        self.size = size

    def load(self, buffer: memoryview, start: int, size: int) -> None:
        there = is_cached(self._cached, start, size)
        if there or not self._loaded_direct(buffer, start, size):
            self._read(self._cached, buffer[:size], start, size)
            if not there:
                os.posix_fadvise(self._cached, start, size, os.POSIX_FADV_DONTNEED)
        check_settled(self._source)

    def _loaded_direct(self, buffer: memoryview, start: int, size: int) -> bool:
        if self._direct is None or self._unit is None:
            return False
        try:
            self._read(self._direct, buffer[: -(-size // self._unit) * self._unit], start, size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._unit = None
            return False
        return True

    def _read(self, descriptor: int, view: memoryview, start: int, size: int) -> None:
        filled = 0
        while filled < size:
            count = os.preadv(descriptor, [view[filled:]], start + filled)
            if count == 0:
                check_settled(self._source)
                raise Corrupt(
                    f"the file lost bytes while it was read: {start + filled} of {start + size}",
                    str(path_of(self._source)),
                )
            filled += count

    def clone_to(self, target: int) -> bool:
        if not clone(self._cached, target):
            return False
        check_settled(self._source)
        return True


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Origin | None]:
    """A source for reading; None: it is no regular file, and has to be read from its beginning to its end."""
    path = path_of(source)
    if path is None:
        assert isinstance(source, bytes | memoryview)
        yield _Memory(source)
        return
    cached = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    direct = None
    try:
        status = os.fstat(cached)
        if not stat.S_ISREG(status.st_mode):
            yield None
            return
        with contextlib.suppress(OSError):  # EINVAL where there is no direct I/O
            direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | O_DIRECT)
        yield _File(source, cached, direct, status.st_size)
    finally:
        os.close(cached)
        if direct is not None:
            os.close(direct)
