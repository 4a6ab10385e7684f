"""Locks that processes share: flock(2) on files of the cache directory.

Who reads a sealed file holds LOCK_SH on the open file description. Who wants to move or remove one must get LOCK_EX on
it, and asks for that only while holding the directory's mutex: so a reader who tries to upgrade, which gives its shared
lock up for a moment (flock(2)), can take it back. A process of another user, which was handed a descriptor (`passing`), may
keep LOCK_EX as long as it likes: the file is then given up, not waited for.

Who fetches something for all holds an open file description lock (fcntl(2)) on a range of bytes that stands for it. The
kernel drops it however the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE: Final = 20.0
"""Seconds to wait for who holds a claim: a process that is stopped holds it for ever."""
POLLS: Final = (0.001, 0.02)
"""Seconds between looks at what another process fetches, the first and the longest: a round trip, about."""

_FLOCK: Final = struct.Struct("hhqqi4x")
"""struct flock of the 64-bit systems that have these locks."""
_SETLK: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
"""None where there are no such locks: two processes may then fetch the same bytes."""


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


def claim(descriptor: int, start: int, length: int) -> bool:
    """Claim a range without waiting, for the open file of the descriptor; False if another one has claimed a part."""
    return _set(descriptor, fcntl.F_WRLCK, start, length)


def unclaim(descriptor: int, start: int, length: int) -> None:
    """Undo `claim`; without one nothing happens."""
    _set(descriptor, fcntl.F_UNLCK, start, length)


def _set(descriptor: int, kind: int, start: int, length: int) -> bool:
    if _SETLK is None:
        return True
    try:
        fcntl.fcntl(descriptor, _SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except (BlockingIOError, PermissionError):  # either, says fcntl(2)
        return False
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOLCK, errno.ENOTSUP}:
            raise
        # As where there are none.
    return True
