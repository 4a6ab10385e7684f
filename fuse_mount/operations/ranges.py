"""Ranges of open files: allocating, finding holes, copying between files; and ioctl, which does nothing here."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdriver.errors import CrossRoute, Stale
from fsdriver.fuse_mount.protocol import COPY_FILE_RANGE_IN, FALLOCATE_IN, LSEEK_IN, LSEEK_OUT, WRITE_OUT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.openstate import OpenState
    from fsdriver.fuse_mount.session import Reply, Request

    Answer = Reply | Coroutine[Any, Any, Reply]

LARGEST_COPY: Final = 0x7FFFF000
"""Bytes of one COPY_FILE_RANGE: its reply counts in 32 bits (as MAX_RW_COUNT)."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def _state(fs: FileSystem, number: int) -> OpenState:
    state = fs.handles.files[number].node.opened
    if state is None:
        raise Stale("it is not open")
    return state


def _staged(state: OpenState) -> int:
    if state.staged is None:
        raise OSError(errno.EBADF, "it is not open for writing")
    return state.staged.fileno()


def fallocate(fs: FileSystem, request: Request) -> Answer:
    """FALLOCATE: every mode the local file system has (fallocate(2))."""
    number, offset, length, mode, _ = FALLOCATE_IN.unpack_from(request.body)
    return _fallocate(fs, _staged(_state(fs, number)), mode, offset, length)


async def _fallocate(fs: FileSystem, descriptor: int, mode: int, offset: int, length: int) -> Reply:
    def work() -> None:
        if _libc.fallocate(descriptor, mode, offset, length):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    await fs.on_disk(work)
    return b""


def lseek(fs: FileSystem, request: Request) -> Answer:
    """LSEEK: SEEK_DATA and SEEK_HOLE; what is not here yet counts as data."""
    number, offset, whence, _ = LSEEK_IN.unpack_from(request.body)
    handle = fs.handles.files[number]
    if handle.data is not None:
        return LSEEK_OUT.pack(_seek_solid(len(handle.data), offset, whence))
    state = _state(fs, number)
    descriptor = state.descriptor()
    if descriptor is not None:
        return LSEEK_OUT.pack(os.lseek(descriptor, offset, whence))
    return LSEEK_OUT.pack(_seek_solid(state.reader.size if state.reader else 0, offset, whence))


def _seek_solid(size: int, offset: int, whence: int) -> int:
    """lseek(2) in a file without holes."""
    if offset >= size:
        raise OSError(errno.ENXIO, "past the end of the file")
    return offset if whence == os.SEEK_DATA else size


def copy_file_range(fs: FileSystem, request: Request) -> Answer:
    """COPY_FILE_RANGE: inside the local file system, where it can by reference."""
    return _copy(fs, request, WRITE_OUT.pack)


def copy_file_range_64(fs: FileSystem, request: Request) -> Answer:
    """COPY_FILE_RANGE_64: the same, counting in 64 bits."""
    return _copy(fs, request, lambda done, _: LSEEK_OUT.pack(done))


def _copy(fs: FileSystem, request: Request, pack: Any) -> Answer:
    source, start, _, target, at, length, _ = COPY_FILE_RANGE_IN.unpack_from(request.body)
    state = _state(fs, source)
    descriptor = state.descriptor()
    if descriptor is None:
        raise CrossRoute("the source is not complete here: the kernel reads and writes instead")
    return _copy_local(fs, descriptor, start, _staged(_state(fs, target)), at, min(length, LARGEST_COPY), pack)


async def _copy_local(fs: FileSystem, source: int, start: int, target: int, at: int, length: int, pack: Any) -> Reply:
    done = await fs.on_disk(partial(os.copy_file_range, source, target, length, start, at))
    reply: bytes = pack(done, 0)
    return reply


def ioctl(_: FileSystem, __: Request) -> Answer:
    """IOCTL: no file here has any."""
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
