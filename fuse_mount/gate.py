"""A lock that coroutines of `fsdriver.runtime` can hold: free in the calling thread, waiting on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from types import TracebackType

from fsdriver.runtime import on_loop

_mutex = threading.Lock()
"""Guards the few instructions that take or hand over any gate."""


class Gate:
    """Mutual exclusion between coroutines that may run in the reader thread or on the event loop; first come, first served.

    Used as ``async with gate:``. Taking a free gate needs no event loop.
    """

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._held = False
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] | None = None

    def enter_now(self) -> bool:
        """Take it if it is free; `leave` afterwards."""
        with _mutex:
            taken = not self._held
            self._held = True
        return taken

    async def __aenter__(self) -> None:
        if self.enter_now():
            return
        await on_loop()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        with _mutex:
            if not self._held:
                self._held = True
                return
            if self._waiters is None:
                self._waiters = deque()
            self._waiters.append((loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._withdraw(loop, turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        with _mutex:
            if not self._waiters:
                self._held = False
                return
            loop, turn = self._waiters.popleft()
        loop.call_soon_threadsafe(self._grant, turn)

    def _grant(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.leave()
        else:
            turn.set_result(None)

    def _withdraw(self, loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> None:
        """A cancelled waiter leaves the queue; if its turn had come already, the next one gets it."""
        with _mutex:
            waiting = self._waiters is not None and (loop, turn) in self._waiters
            if waiting and self._waiters is not None:
                self._waiters.remove((loop, turn))
        if not waiting and turn.done() and not turn.cancelled():
            self.leave()
