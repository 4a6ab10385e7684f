"""Directories that stay open longer than their listing may be trusted.

The kernel keeps the names of a directory and asks again at each open (`operations.directories.opendir`). Whoever rewinds a
directory that is open all along would read the kept names for ever: when their time is over, the kernel is told to drop them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fsspec.asyn import get_loop

if TYPE_CHECKING:
    from .handles import Handles


class Rereading:
    """Watches the open directories of one mount whose names the kernel keeps.

    Parameters
    ----------
    handles : Handles
    """

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._watching = False
        self.drop: Callable[[Sequence[int]], object] | None = None
        """Makes the kernel drop the names of directories, by nodeid; None while there is no way to tell it."""

    def watch(self, seconds: float) -> None:
        """A directory was opened whose names may be kept so long."""
        if not self._watching and self.drop is not None:
            self._watching = True
            get_loop().call_soon_threadsafe(self._later, seconds)

    def _later(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(max(seconds, 0.0), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        kept = [handle for handle in list(self._handles.directories.values()) if handle.kept]
        over = [handle for handle in kept if handle.until <= now]
        if over and self.drop is not None:
            self.drop([handle.node.nodeid for handle in over])
        for handle in over:
            handle.kept, handle.node.listed = False, None
        left = [handle.until - now for handle in kept if handle.until > now]
        self._watching = bool(left)
        if left:
            self._later(min(left))
