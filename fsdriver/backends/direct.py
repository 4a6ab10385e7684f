"""``direct://``: the tree of ``file://``, whose bytes pass the page cache by (O_DIRECT).

A large file that is written or read leaves the cached pages of other programs where they are. Whole pages go from and to
aligned buffers, several requests at a time. The last bytes of a file, less than a page, are written through the page cache
once the others are there, so that nothing is ever written beyond the end of a file, and are let go when they are on the disk.
What is promised, and when, is what ``file://`` promises: file and directory are synced before a put returns.
"""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fsdriver.backends.aligned import BLOCK, buffer, each, mapped
from fsdriver.backends.direct_calls import O_DIRECT, alignment, allocate, turn_direct
from fsdriver.backends.direct_source import Origin, opened
from fsdriver.backends.local import LocalBackend
from fsdriver.backends.local_files import Buffered, Writing, cut_short
from fsdriver.backends.local_tree import real_path
from fsdriver.config.places import file_system_type
from fsdriver.errors import ConfigError, Unsupported

if TYPE_CHECKING:
    from fsdriver.backends.base import Counters
    from fsdriver.backends.retry import RetryPolicy
    from fsdriver.backends.source import Source

log = logging.getLogger(__name__)

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
"""File systems whose files are the page cache, whatever they answer to O_DIRECT."""
REMEDY: Final = "put the directory on a disk whose file system has direct I/O (ext4, XFS, btrfs), or write file://"
_UNTOLD: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC})


def refusal(root: str) -> str:
    """Why files in a directory cannot be read and written past the page cache; "" if they can, or nobody knows yet."""
    if not O_DIRECT:
        return "this operating system has no O_DIRECT"
    kind = file_system_type(Path(root))
    if kind in IN_MEMORY:
        return f"files of {kind} are kept in the page cache itself"
    try:
        # A file without a name, gone when it is closed.
        descriptor = os.open(root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | O_DIRECT, 0o600)
    except OSError as error:
        return f"{kind or 'the file system'} refuses O_DIRECT" if error.errno == errno.EINVAL else ""
    try:
        return "" if alignment(descriptor) else f"{kind} reads and writes files through the page cache here"
    finally:
        os.close(descriptor)


class Direct(Buffered):
    """Bytes of local files past the page cache; through it where the file system refuses, which is counted.

    Parameters
    ----------
    root : str
        Where the files are.
    strict : bool
        Fail instead.
    counters : Counters

    Raises
    ------
    ConfigError
        ``strict``, and the file system of the root refuses.
    """

    def __init__(self, root: str, counters: Counters, *, strict: bool) -> None:
        self._counters = counters
        self._strict = strict
        self._in_memory: dict[int, bool] = {}
        self._told: set[int] = set()
        # The root of a chained URL is that of the machine: it says nothing about the directories that are used.
        found = refusal(root) if root != "/" else ""
        if found and strict:
            raise ConfigError(f"{found}, and this backend is strict; {REMEDY}", root)
        if found:
            # Who opened this backend tells of that (`fsdriver.backends.weaknesses`).
            self._told.add(os.stat(root).st_dev)

    def fill(self, descriptor: int, source: Source, writing: Writing) -> None:
        unit = self._begin(descriptor)
        if unit is None:
            super().fill(descriptor, source, writing)
            return
        try:
            with opened(source) as origin:
                if origin is not None:
                    _copy(descriptor, origin, writing, unit)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._refuse(descriptor)
            os.ftruncate(descriptor, 0)
            origin = None
        finally:
            turn_direct(descriptor, on=False)
        if origin is None:
            super().fill(descriptor, source, writing)

    def synced(self, descriptor: int) -> None:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, descriptor: int, start: int, stop: int, key: str) -> memoryview:
        unit = self._begin(descriptor) if start < stop else None
        if unit is None:
            return super().read(descriptor, start, stop, key)
        try:
            return _read(descriptor, start, stop, unit, key)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._refuse(descriptor)
        turn_direct(descriptor, on=False)
        return super().read(descriptor, start, stop, key)

    def _begin(self, descriptor: int) -> int | None:
        """Turn to direct I/O: what its offsets are multiples of; None where there is none."""
        unit = alignment(descriptor) if O_DIRECT and self._may_begin(descriptor) else None
        if unit is not None:
            try:
                turn_direct(descriptor, on=True)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                unit = None
        if unit is None or BLOCK % unit:
            self._refuse(descriptor)
            return None
        return unit

    def _may_begin(self, descriptor: int) -> bool:
        device = os.fstat(descriptor).st_dev
        if device not in self._in_memory:
            self._in_memory[device] = file_system_type(_path(descriptor)) in IN_MEMORY
        return not self._in_memory[device]

    def _refuse(self, descriptor: int) -> None:
        """Go on through the page cache; told once a file system."""
        self._counters.buffered += 1
        if self._strict:
            raise Unsupported("its file system refuses direct I/O, and this backend is strict", str(_path(descriptor)))
        device = os.fstat(descriptor).st_dev
        if device not in self._told:
            self._told.add(device)
            log.warning(
                "%s: its file system refuses direct I/O; files are read and written through the page cache there; %s",
                _path(descriptor),
                REMEDY,
            )


def _path(descriptor: int) -> Path:
    return Path(real_path(descriptor, ""))


def _copy(descriptor: int, origin: Origin, writing: Writing, unit: int) -> None:
    """Write all of a source, its whole units by direct I/O and the rest through the page cache."""
    if origin.clone_to(descriptor):
        return
    size = origin.size
    end = size // unit * unit
    rest = bytearray()
    allocate(descriptor, size)

    def step(start: int) -> None:
        writing.check()
        count = min(BLOCK, size - start)
        with buffer() as memory:
            origin.load(memory, start, count)
            whole = min(count, end - start)
            _write(descriptor, memory[:whole], start, unit)
            rest.extend(memory[whole:count])

    each(range(0, size, BLOCK), step)
    turn_direct(descriptor, on=False)
    while rest:
        del rest[: os.pwrite(descriptor, rest, size - len(rest))]


def _write(descriptor: int, view: memoryview, start: int, unit: int) -> None:
    while view:
        count = os.pwritev(descriptor, [view], start) // unit * unit
        if count == 0:
            raise OSError(errno.EIO, f"the disk took less than {unit} bytes of a direct write")
        view, start = view[count:], start + count


def _read(descriptor: int, start: int, stop: int, unit: int, key: str) -> memoryview:
    """A range, with what it lacks to whole units at both ends; a small one in memory of its size."""
    first = start // unit * unit
    size = -(-stop // unit) * unit - first
    inside = slice(start - first, stop - first)

    def step(view: memoryview, at: int) -> None:
        filled = 0
        wanted = min(len(view), stop - at)
        while filled < wanted:
            count = os.preadv(descriptor, [view[filled:]], at + filled)
            filled += count
            if filled < wanted and count % unit:
                # A direct read ends within a unit at the end of the file only.
                raise cut_short(key, at + filled, stop)
            if count == 0:
                raise cut_short(key, at + filled, stop)

    if size <= BLOCK:
        with buffer() as memory:
            step(memory[:size], first)
            return memoryview(bytes(memory[inside]))
    view = memoryview(mapped(size))
    each(range(0, size, BLOCK), lambda at: step(view[at : at + BLOCK], first + at))
    return view[inside].toreadonly()


class DirectBackend(LocalBackend):
    """`LocalBackend`, past the page cache.

    Parameters
    ----------
    root, retry, fsync
        As there.
    strict : bool
        Where a file system refuses direct I/O, fail; by default the page cache is used, which ``status`` tells.
    """

    scheme = "direct"
    capabilities = replace(LocalBackend.capabilities, cached=False)

    def __init__(self, root: str, retry: RetryPolicy, *, fsync: bool = True, strict: bool = False) -> None:
        super().__init__(root, retry, fsync=fsync)
        self.moving = Direct(self.tree.root, self.counters, strict=strict)
