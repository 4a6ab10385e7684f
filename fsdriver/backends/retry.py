"""When to try a request again, and how long one operation may take in all."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SLOWEST_TRANSFER: Final = 1 << 20
"""Bytes a second a transfer is assumed to reach at least; extends the deadline of large ones."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts, back-off and deadline of one operation.

    Before attempt n + 1 it waits ``random() · min(cap, base · 2ⁿ⁻¹)`` seconds ("full jitter", Brooker, *Exponential
    Backoff And Jitter*, AWS Architecture Blog, 2015), or as long as the store asked for if that is longer.

    Attributes
    ----------
    attempts : int
        Requests in all, the first included.
    base, cap : float
        Seconds: the first wait at most, and the longest.
    deadline : float
        Seconds for the whole operation, waits included; one that carries many bytes gets a second more for every
        `SLOWEST_TRANSFER` bytes, but no new attempt begins after ``deadline``.
    clock, sleep, random
        Injectable for tests.
    """

    attempts: int = 4
    base: float = 0.1
    cap: float = 5.0
    deadline: float = 30.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after the ``failures``-th failure (from 1)."""
        wait = self.random() * min(self.cap, self.base * 2.0 ** (failures - 1))
        return max(wait, retry_after or 0.0)

    def limit(self, size: int) -> float:
        """Deadline in seconds of an operation that carries ``size`` bytes."""
        return self.deadline + size / SLOWEST_TRANSFER

    def patience(self, size: int) -> float | None:
        """Seconds after which an attempt at something that may be asked twice is given up, so that another has time."""
        return self.deadline / 2 + size / SLOWEST_TRANSFER if self.attempts > 1 else None
