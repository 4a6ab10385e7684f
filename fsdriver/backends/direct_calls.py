"""System calls of direct I/O that Python's ``os`` does not have: statx(2), fallocate(2), cachestat(2), ioctl_ficlone(2)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from functools import cache
from typing import Final

PAGE: Final = os.sysconf("SC_PAGESIZE")
O_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)
"""0 on systems without it."""

_DIOALIGN: Final = 0x2000  # STATX_DIOALIGN (linux/stat.h)
_EMPTY_PATH: Final = 0x1000  # AT_EMPTY_PATH (linux/fcntl.h)
_STATX_SIZE: Final = 256
_STATX_ALIGN: Final = struct.Struct("=152x2I")  # stx_dio_mem_align, stx_dio_offset_align
_CACHESTAT: Final = 451  # __NR_cachestat, on all architectures (asm-generic/unistd.h)
_FICLONE: Final = 0x40049409  # linux/fs.h


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "fallocate64"):
        libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return libc


def alignment(descriptor: int) -> int | None:
    """What offsets and lengths of direct I/O are multiples of: whole pages, so that no page is written in both ways.

    None: the kernel says that this file has none. What an old kernel does not say is found by trial.
    """
    libc = _libc()
    if not hasattr(libc, "statx"):
        return PAGE
    answer = ctypes.create_string_buffer(_STATX_SIZE)
    if libc.statx(descriptor, b"", _EMPTY_PATH, _DIOALIGN, answer):
        return PAGE
    (mask,) = struct.unpack_from("=I", answer)
    if not mask & _DIOALIGN:
        return PAGE
    memory, offset = _STATX_ALIGN.unpack_from(answer)
    return max(PAGE, offset) if memory and offset else None


def turn_direct(descriptor: int, on: bool) -> None:
    """Reads and writes of an open file pass the page cache by, or no longer. Raises OSError (EINVAL) where they cannot."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | O_DIRECT if on else flags & ~O_DIRECT)


def allocate(descriptor: int, size: int) -> None:
    """Reserve all blocks of a new file, whose size this is: several writes at a time do not wait for its end to move.

    Raises
    ------
    OSError
        There is no room. File systems that reserve nothing are left as they are.
    """
    libc = _libc()
    if size and hasattr(libc, "fallocate64") and libc.fallocate64(descriptor, 0, 0, size):
        code = ctypes.get_errno()
        if code not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
            raise OSError(code, os.strerror(code))


def clone(source: int, target: int) -> bool:
    """Have a new file share all blocks of another one (XFS, btrfs, bcachefs); False where that cannot be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def is_cached(descriptor: int, start: int, size: int) -> bool:
    """Whether the page cache has all of a range (Linux 6.5); False if nobody can tell."""
    where = struct.pack("=2Q", start, size)
    answer = ctypes.create_string_buffer(40)
    if _libc().syscall(_CACHESTAT, descriptor, where, answer, 0):
        return False
    (pages,) = struct.unpack_from("=Q", answer)
    return bool(pages * PAGE >= -(-(start + size) // PAGE) * PAGE - start // PAGE * PAGE)
