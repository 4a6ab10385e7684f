"""The daemon's memory: what the C library does with freed buffers, and how often Python looks for cycles."""

from __future__ import annotations

import ctypes
import gc
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


COLLECT_AFTER: Final = 20_000
"""New objects before the youngest are looked at."""


def settle_collector() -> None:
    """What exists now stays: Python need not look through it for cycles again; call it when all is loaded.

    A listing makes objects by the ten thousand, none of which is garbage. With Python's defaults a third of the processor
    time of a first walk went into looking through all of them, and all modules, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)
