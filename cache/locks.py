"""Locks that processes share: flock(2) on files of the cache directory.

Who reads a sealed file holds LOCK_SH on the open file description. Who wants to move or remove one must get LOCK_EX on
it, and asks for that only while holding the directory's mutex: so a reader who tries to upgrade, which gives its shared
lock up for a moment (flock(2)), can always take it back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mutex(path: Path) -> Iterator[None]:
    """Exclusive among all threads and processes; the file is made when missing."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            break
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Unlock before closing: a process forked meanwhile holds a duplicate that would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def share(descriptor: int) -> bool:
    """Take LOCK_SH without waiting."""
    return _try(descriptor, fcntl.LOCK_SH)


def exclude(descriptor: int) -> bool:
    """Take LOCK_EX without waiting; a shared lock held on the descriptor is lost when that fails."""
    return _try(descriptor, fcntl.LOCK_EX)


def release(descriptor: int) -> None:
    """Drop the lock, for duplicates of the descriptor in forked processes too."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
