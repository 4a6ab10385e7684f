"""How much an item is worth keeping: how often, how lately and for how long it has been used.

The formula is that of ipfs_kit_py (TieredCacheManager, "heat score"). It is evaluated when it is asked for, never stored: what
is idle cools down by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600.0
DAY: Final = 86400.0
YOUNGEST: Final = 0.001
"""Seconds of the smallest age."""


@dataclass(frozen=True, slots=True)
class HeatWeights:
    """Parameters of `heat`.

    Attributes
    ----------
    frequency, recency : float
        Shares of the number of uses and of the time since the last one.
    boost : float
        Factor for what was used within the last ``decay_hours``.
    decay_hours : float
        Hours after which the share of recency has halved.
    """

    frequency: float = 0.7
    recency: float = 0.3
    boost: float = 2.0
    decay_hours: float = 1.0


DEFAULT_WEIGHTS: Final = HeatWeights()


def heat(count: int, age: float, idle: float, weights: HeatWeights = DEFAULT_WEIGHTS) -> float:
    """The heat of an item; no unit, larger is hotter.

    Parameters
    ----------
    count : int
        Uses so far.
    age : float
        Seconds from the first use to the last.
    idle : float
        Seconds since the last use.
    weights : HeatWeights, optional
    """
    decay = weights.decay_hours * HOUR
    recency = 1.0 / (1.0 + idle / decay)
    boost = weights.boost if idle < decay else 1.0
    worth = math.pow(count, 1.5) * weights.frequency + recency * weights.recency
    return worth * boost * (1.0 + math.log(1.0 + max(YOUNGEST, age) / DAY))


def cools_below(threshold: float, count: int, age: float, weights: HeatWeights = DEFAULT_WEIGHTS) -> float:
    """Seconds without a use after which `heat` is below ``threshold``: the opposite of it.

    ``math.inf`` where it never is: however long an item is idle, the share of its uses stays.
    """
    decay = weights.decay_hours * HOUR
    steady = math.pow(count, 1.5) * weights.frequency
    scale = 1.0 + math.log(1.0 + max(YOUNGEST, age) / DAY)
    for boost, begin, end in ((weights.boost, 0.0, decay), (1.0, decay, math.inf)):
        missing = threshold / (boost * scale) - steady
        if missing > weights.recency / (1.0 + begin / decay):
            return begin
        if missing > 0.0:
            idle = decay * (weights.recency / missing - 1.0)
            if idle < end:
                return max(begin, idle)
    return math.inf


@dataclass(slots=True)
class Uses:
    """When an item was used, in seconds of one clock, and how often."""

    first: float
    last: float
    count: int = 1

    def note(self, now: float) -> None:
        """One more use."""
        self.last = now
        self.count += 1

    def heat(self, now: float, weights: HeatWeights = DEFAULT_WEIGHTS) -> float:
        """`heat` as of ``now``."""
        return heat(self.count, self.last - self.first, now - self.last, weights)
