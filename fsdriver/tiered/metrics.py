"""How long the operations of a `TieredCacheManager` take, and what each tier moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BUCKETS: Final = 32
"""Of latencies: the n-th holds those below 2^n microseconds; the last, over half an hour, all others."""


@dataclass(slots=True)
class Latency:
    """Durations of one kind of operation."""

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self.buckets[min(int(seconds * 1e6).bit_length(), _BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float:
        """Seconds that no more than ``1 - share`` of them take longer than, up to a factor of two."""
        left = share * self.count
        for number, count in enumerate(self.buckets[:-1]):
            left -= count
            if count and left <= 0:
                return min(self.longest, 2.0**number / 1e6)
        return self.longest

    def report(self) -> dict[str, Any]:
        """Seconds."""
        return {
            "count": self.count,
            "total": self.seconds,
            "mean": self.seconds / self.count if self.count else 0.0,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "max": self.longest,
        }


@dataclass(slots=True)
class Moved:
    """Contents that went one way, into or out of a tier."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        """Bandwidth is bytes for each second in which the tier was at work."""
        bandwidth = self.bytes / self.seconds if self.seconds else 0.0
        return {"count": self.count, "bytes": self.bytes, "seconds": self.seconds, "bandwidth": bandwidth}


class Metrics:
    """See the module. Used under the lock of its manager.

    Parameters
    ----------
    timer : callable
        Seconds, from any beginning.
    """

    def __init__(self, timer: Callable[[], float] = perf_counter) -> None:
        self.timer = timer
        self._operations: defaultdict[str, Latency] = defaultdict(Latency)
        self._moved: defaultdict[tuple[str, str], Moved] = defaultdict(Moved)

    def done(self, operation: str, began: float) -> None:
        """An operation has ended that began then, by `timer`."""
        self._operations[operation].add(self.timer() - began)

    @contextmanager
    def moving(self, tier: str, direction: str) -> Iterator[Moved]:
        """Time what moves; the block adds to ``count`` and ``bytes`` of what it is given."""
        moved, began = self._moved[tier, direction], self.timer()
        try:
            yield moved
        finally:
            moved.seconds += self.timer() - began

    def report(self, hits: dict[str, int]) -> dict[str, Any]:
        """By operation and by tier; ``hits`` are those of each tier."""
        tiers = {
            tier: {
                "hits": count,
                "read": self._moved[tier, "read"].report(),
                "written": self._moved[tier, "written"].report(),
            }
            for tier, count in hits.items()
        }
        return {"operations": {name: one.report() for name, one in self._operations.items()}, "tiers": tiers}
