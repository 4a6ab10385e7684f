"""What the C library's allocator does with the daemon's freed buffers."""

from __future__ import annotations

import ctypes
import logging
from typing import Final

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MIB: Final = 1 << 20
LARGEST_KEPT: Final = 32 * _MIB
"""Largest buffer served from kept memory, bytes: the most that glibc takes."""
KEPT: Final = 128 * _MIB
"""Freed bytes at the end of the heap that are not given back."""
ARENAS: Final = 1


def keep_freed_memory() -> None:
    """Let the next buffer of a stream have the pages of an earlier one; call it before threads begin.

    By default glibc gives the pages of a large buffer back when it is freed, and the kernel must find, clear and map new
    ones for the next: a sixth of the daemon's processor time when it streams. One arena for all threads keeps what they
    hold small. Other C libraries have no such settings; there nothing changes. See mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        log.debug("this C library has no mallopt: freed memory goes back to the kernel at once")
        return
    for setting, value in ((_M_MMAP_THRESHOLD, LARGEST_KEPT), (_M_TRIM_THRESHOLD, KEPT), (_M_ARENA_MAX, ARENAS)):
        if not mallopt(setting, value):
            log.info("the C library refuses mallopt(%d, %d): streaming costs more processor time", setting, value)
