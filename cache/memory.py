"""Bounds on the buffers that fills hold: bytes on their way to disk, and bytes kept because there is no disk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

MIB: Final = 1 << 20
IN_FLIGHT_BYTES: Final = 48 * MIB
KEPT_BYTES: Final = 32 * MIB


class Budget:
    """Bytes that may be in flight at once, given out in the order of asking. Used on the event loop only."""

    def __init__(self, limit: int = IN_FLIGHT_BYTES) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def free(self, size: int) -> bool:
        """Whether ``size`` bytes would be given at once."""
        return not self._waiting and (self.used + size <= self.limit or not self.used)

    async def acquire(self, size: int) -> None:
        """Wait for ``size`` bytes; a size over the limit is given when nothing else is in use."""
        if self.free(size):
            self.used += size
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(size)
            raise

    def release(self, size: int) -> None:
        """Give back, and wake who fits now."""
        self.used -= size
        while self._waiting:
            wanted, future = self._waiting[0]
            if future.cancelled():
                self._waiting.popleft()
                continue
            if self.used and self.used + wanted > self.limit:
                return
            self._waiting.popleft()
            self.used += wanted
            future.set_result(None)


class Kept:
    """Buffers of fills without a disk file, least recently arrived dropped first. Used on the event loop only."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self.used = 0
        self._drops: OrderedDict[object, tuple[int, Callable[[], None]]] = OrderedDict()

    def keep(self, owner: object, size: int, drop: Callable[[], None]) -> None:
        """Account for a buffer; ``drop`` is called when it must go."""
        self._drops[owner] = (size, drop)
        self.used += size
        while self.used > self.limit and len(self._drops) > 1:
            oldest = next(iter(self._drops))
            _, call = self._drops[oldest]
            self.forget(oldest)
            call()

    def forget(self, owner: object) -> None:
        """The buffer has gone."""
        found = self._drops.pop(owner, None)
        if found:
            self.used -= found[0]
