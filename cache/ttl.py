"""A bounded map whose entries expire: attributes, listings and negative answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import TLRUCache

V = TypeVar("V")


class TTLCache(Generic[V]):
    """Thread-safe map from text to values, each with its own time to live.

    Parameters
    ----------
    entries : int
        Bound; the least recently used entry goes first.
    ttl : float
        Default time to live, seconds.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, entries: int, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.ttl = ttl
        self._lock = threading.Lock()
        self._map: TLRUCache[str, tuple[V, float]] = TLRUCache(entries, ttu=_expiry, timer=clock)

    def get(self, key: str) -> V | None:
        """The value, or None when absent or expired."""
        with self._lock:
            found = self._map.get(key)
        return None if found is None else found[0]

    def put(self, key: str, value: V, ttl: float | None = None) -> None:
        """Remember for ``ttl`` seconds (None: the default; 0 or less: not at all)."""
        life = self.ttl if ttl is None else ttl
        with self._lock:
            if life > 0:
                self._map[key] = (value, life)
            else:
                self._map.pop(key, None)

    def pop(self, key: str) -> V | None:
        """Forget one key; its value, if it was still alive."""
        with self._lock:
            found = self._map.pop(key, None)
        return None if found is None else found[0]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._map.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._map)


def _expiry(_key: str, value: tuple[object, float], now: float) -> float:
    return now + value[1]
