"""What recently closed nodes stood on, kept for a moment: the same file is often opened again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fsspec.asyn import get_loop

if TYPE_CHECKING:
    from .inodes import Node
    from .openstate import OpenState

PARKED_MOST: Final = 256
PARKED_SECONDS: Final = 2.0


class Parked:
    """Local files and backing ids, least recently closed given up first. Thread-safe.

    Parameters
    ----------
    let_go : callable
        What becomes of a state that is too old, or one too many.
    """

    def __init__(self, let_go: Callable[[OpenState], None]) -> None:
        self._let_go = let_go
        self._states: OrderedDict[Node, tuple[OpenState, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._sweeping = False

    def put(self, node: Node, state: OpenState) -> None:
        """Keep the state of a node that was closed."""
        with self._lock:
            self._states[node] = state, time.monotonic() + PARKED_SECONDS
            sweeping, self._sweeping = self._sweeping, True
        self.trim(time.monotonic())
        if not sweeping:
            get_loop().call_soon_threadsafe(self._sweep_later)

    def take(self, node: Node) -> OpenState | None:
        """The state of a node that was closed a moment ago; the caller owns it."""
        with self._lock:
            parked = self._states.pop(node, None)
        return None if parked is None else parked[0]

    def trim(self, now: float, most: int = PARKED_MOST) -> None:
        """Let go of what is more than ``most``, or older than it may be at ``now`` (monotonic seconds)."""
        while True:
            with self._lock:
                if not self._states:
                    return
                node, (state, until) = next(iter(self._states.items()))
                if len(self._states) <= most and until > now:
                    return
                del self._states[node]
            self._let_go(state)

    def _sweep_later(self) -> None:
        asyncio.get_running_loop().call_later(PARKED_SECONDS / 2, self._sweep)

    def _sweep(self) -> None:
        self.trim(time.monotonic())
        with self._lock:
            self._sweeping = bool(self._states)
            again = self._sweeping
        if again:
            self._sweep_later()
