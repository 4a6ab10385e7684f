"""Writing to the disk what is to survive a power failure, one fsync(2) for all who wait for it at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


class SharedSync:
    """Group commit: a sync that begins after somebody has asked for one is also his.

    Parameters
    ----------
    act : callable
        Syncs all that was written before it is called; never runs twice at the same time.

    Attributes
    ----------
    count : int
        How often it ran.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self.count = 0
        self._act = act
        self._asking = threading.Lock()
        self._syncing = threading.Lock()
        self._asked = 0
        self._synced = 0

    def __call__(self) -> None:
        """Return once everything written before the call is on the disk; raises what ``act`` does."""
        with self._asking:
            self._asked += 1
            mine = self._asked
        with self._syncing:
            if self._synced >= mine:
                return
            with self._asking:
                upto = self._asked
            self._act()
            self.count += 1
            self._synced = upto


def sync_directory(path: Path) -> None:
    """Names that were made in, moved into or removed from a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directories(path: Path) -> None:
    """`sync_directory` of a directory and of those above it, as far as they may be opened: one of them may be new."""
    sync_directory(path)
    for above in path.absolute().parents:
        try:
            sync_directory(above)
        except PermissionError:
            return
