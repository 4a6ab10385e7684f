"""Disk space for what is written into the cache: free space is kept for others, whoever writes at the same time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from . import locks
from .eviction import Evictor
from .files import LocalFile
from .opened import OpenFiles

AMPLE: Final = 1 << 30
"""Bytes of free space beyond `min_free` above which nobody asks before writing: more than many processes have in flight."""


class Space:
    """The free space of one cache directory.

    Parameters
    ----------
    guard : Path
        The mutex of the cache directory.
    evictor : Evictor
    opened : OpenFiles
    """

    def __init__(self, guard: Path, evictor: Evictor, opened: OpenFiles) -> None:
        self._guard = guard
        self._evictor = evictor
        self._opened = opened

    def ample(self, size: int) -> bool:
        """Whether there is so much free space that ``size`` bytes need no `allocate`."""
        return self._evictor.free() >= size + AMPLE

    def allocate(self, file: LocalFile, start: int, size: int) -> bool:
        """Give a range of an unfinished file its disk space, if need be after evicting others.

        Looking and taking are one step, for all threads and processes of the directory: what is allocated here is
        missing in the free space that the next one sees. With space in plenty nothing needs to be taken.

        Returns
        -------
        bool
            False if `min_free` would not be kept.
        """
        if self.ample(size):
            return True
        self._opened.flush()
        with locks.mutex(self._guard):
            if not self._evictor.make_room(0, unwritten=size):
                return False
            os.posix_fallocate(file.descriptor, start, size)
        return True
