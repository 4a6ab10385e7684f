"""The memory tier: small objects that this process reads again and again, whole, in front of the files on disk.

Bytes are kept under the name of their version (`ObjectKey.place`), so they are never older than what the disk cache would
give. What is kept is what was handed out: nothing is copied.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .arc import ARCCache

LARGEST: Final = 1 << 20
"""Bytes of the largest object that is kept: what one read(2) gives as fast is not worth memory."""
OVERHEAD: Final = 600
"""Bytes that an object takes beside its own: key, counts and tables."""
BYTES_PER_GHOST: Final = 8192
"""The bound is divided by this for the number of evicted objects that are remembered."""


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """State of the memory tier of one process.

    Attributes
    ----------
    size, bytes, entries : int
        Bound, and what is kept now.
    hits, offered : int
        Reads of objects that were here, and objects that were read whole from elsewhere.
    evictions, refused : int
        Objects that went for others, and those that were worth less than what is here.
    """

    size: int
    bytes: int
    entries: int
    hits: int
    offered: int
    evictions: int
    refused: int


class MemoryTier:
    """Thread-safe; see the module.

    Parameters
    ----------
    size : int
        Bound on the bytes kept, `OVERHEAD` included; 0 keeps nothing.
    clock : callable
        Seconds.

    Attributes
    ----------
    size : int
    largest : int
        Bytes of the largest object that is kept.
    """

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self.size = size
        self.largest = min(LARGEST, size // 8 - OVERHEAD)
        self._lock = threading.Lock()
        self._objects: ARCCache[str, bytes] = ARCCache(size, _size, ghosts=size // BYTES_PER_GHOST, clock=clock)
        self._hits = 0
        self._offered = 0

    def get(self, place: str) -> bytes | None:
        """All bytes of an object, or None."""
        with self._lock:
            data: bytes | None = self._objects.get(place)
            self._hits += data is not None
            return data

    def offer(self, place: str, data: bytes) -> None:
        """An object was read whole: keep it, unless it is large or others are worth more."""
        if len(data) <= self.largest:
            with self._lock:
                self._offered += 1
                self._objects.offer(place, data)

    def discard(self, place: str) -> None:
        """Forget an object."""
        with self._lock:
            self._objects.pop(place, None)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._objects.clear()

    def stats(self) -> MemoryStats:
        """What is kept, and what was asked for."""
        with self._lock:
            objects, state = self._objects, self._objects.state()
            return MemoryStats(
                size=objects.maxsize,
                bytes=objects.currsize,
                entries=len(objects),
                hits=self._hits,
                offered=self._offered,
                evictions=state.evictions,
                refused=state.refusals,
            )

    def before_fork(self) -> None:
        """No thread is inside while the process forks: the child goes on with what is kept."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: go on."""
        self._lock = threading.Lock()


def _size(data: bytes) -> int:
    return len(data) + OVERHEAD
