"""What each tier of a stack keeps, takes and gives up: the rules of `fsdriver.tiers.policy`, one tier at a time.

The age rule is that of Hyra Scribe Ledger's archive (``timestamp < now - age_threshold``), the rules of uses and of idle days are
those of ipfs_kit_py's TieredCacheManager, and so is replication of what is hotter than 5.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from fsdriver.cache.heat import DAY, DEFAULT_WEIGHTS, HOUR, HeatWeights, cools_below, heat
from fsdriver.config.policies import Replication, Role
from fsdriver.tiers.records import Record

HIGH_VALUE: Final = 5.0
"""Heat above which `high_value` replication copies a file."""


@dataclass(slots=True)
class Subject:
    """What the rules look at.

    Attributes
    ----------
    key : str
    size : int
        Bytes.
    age : float
        Seconds since its content changed.
    idle : float
        Seconds since it was used; since it changed, if no use is known.
    uses : int
    span : float
        Seconds from the first use to the last.
    weights : HeatWeights
    """

    key: str
    size: int
    age: float
    idle: float
    uses: int
    span: float
    weights: HeatWeights = DEFAULT_WEIGHTS
    _heat: float = -1.0

    @classmethod
    def of(cls, record: Record, now: float, weights: HeatWeights = DEFAULT_WEIGHTS) -> Subject:
        """A record as it is at ``now`` (`time.time`). A time that is still to come counts as now."""
        uses, age = record.uses, max(0.0, now - record.mtime_ns / 1e9)
        idle = max(0.0, now - uses.last) if uses.count else age
        return cls(record.key, record.size, age, idle, uses.count, max(0.0, uses.last - uses.first), weights)

    @property
    def heat(self) -> float:
        """See `fsdriver.cache.heat`; several rules ask for it."""
        if self._heat < 0.0:
            self._heat = heat(self.uses, self.span, self.idle, self.weights)
        return self._heat


class Space(Protocol):
    """How full the tiers are, as far as rules ask."""

    def fits(self, tier: str, size: int) -> bool:
        """Whether a promoted file has room."""
        ...

    def takes(self, tier: str, size: int) -> bool:
        """Whether a file that comes down has room."""
        ...

    def gives_up(self, tier: str, subject: Subject) -> bool:
        """Whether the tier holds too much, and this is among the coldest of it."""
        ...


class Unlimited:
    """All tiers have room."""

    def fits(self, tier: str, size: int) -> bool:
        return True

    def takes(self, tier: str, size: int) -> bool:
        return True

    def gives_up(self, tier: str, subject: Subject) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Prospect:
    """When one rule of one tier applies to a file that nobody uses or changes meanwhile.

    Attributes
    ----------
    rule : str
        ``age``, ``idle``, ``heat``, ``accesses``, ``copies``, ``replication``.
    tier : str
    effect : {'leaves', 'enters', 'stays'}
        What the rule is for.
    due : float or None
        Seconds from now; 0.0: it applies; None: not as long as the file is not used.
    text : str
        The same for people.
    ends : float or None
        When it ceases to apply, in seconds from now; None: never.
    """

    rule: str
    tier: str
    effect: Literal["leaves", "enters", "stays"]
    due: float | None
    text: str
    ends: float | None = None


@dataclass(frozen=True, slots=True)
class TierRules:
    """The settings of one tier, as ``[policy.NAME]`` and ``[policy.NAME.tier.TIER]`` give them together.

    Attributes
    ----------
    name : str
    role : {'store', 'cache', 'replica'}
        A `store` may hold the only copy; a `cache` may not; a `replica` has copies by replication alone.
    max_bytes, max_size : int or None
        Most bytes it holds, and largest file that is copied into it; None: any.
    age_threshold, idle_threshold : float or None
        Seconds since the last change (more than) and the last use (at least) after which a file leaves it.
    demotion_threshold : float or None
        Heat below which a file leaves it.
    promotion_accesses, promotion_threshold
        Uses, and heat, from which a file of a colder tier gets a copy in it.
    copy_accesses : int or None
        Uses from which any file gets a copy in it.
    replication : {'none', 'high_value', 'all'}
        Which files have a copy in it whatever the other rules say.
    high_value : float
        Heat above which a file is of high value.
    """

    name: str
    role: Role = "store"
    max_bytes: int | None = None
    max_size: int | None = None
    age_threshold: float | None = None
    idle_threshold: float | None = None
    demotion_threshold: float | None = None
    promotion_accesses: int | None = None
    promotion_threshold: float | None = None
    copy_accesses: int | None = None
    replication: Replication = "none"
    high_value: float = HIGH_VALUE

    def replicates(self, subject: Subject) -> str:
        """Why the file has to have a copy here; ``""``: it has not."""
        if self.replication == "all":
            return "replication: all"
        if self.replication == "high_value" and subject.heat > self.high_value:
            return f"replication: heat {subject.heat:.2f} is above {self.high_value:g}"
        return ""

    def leaves(self, subject: Subject, space: Space) -> str:
        """Why the file has to go from here; ``""``: it may stay. Without a use or change, what is to go stays so."""
        if self.age_threshold is not None and subject.age > self.age_threshold:
            why = f"age: changed {span(subject.age)} ago, {self.name} keeps {span(self.age_threshold)}"
        elif self.idle_threshold is not None and subject.idle >= self.idle_threshold:
            why = f"idle: not used for {span(subject.idle)}, {self.name} keeps {span(self.idle_threshold)}"
        elif self.demotion_threshold is not None and (warmth := subject.heat) < self.demotion_threshold:
            why = f"heat: {warmth:.2f}, {self.name} keeps from {self.demotion_threshold:g}"
        elif self.max_bytes is not None and space.gives_up(self.name, subject):
            why = f"limit: {self.name} holds more than {self.max_bytes} bytes, this is among the coldest"
        else:
            return ""
        return "" if self.replicates(subject) else why

    def wants(self, subject: Subject, space: Space) -> str:
        """Why a file that lies in a colder tier is promoted to here; ``""``: it is not."""
        if self.promotion_accesses is not None and subject.uses >= self.promotion_accesses:
            why = f"accesses: {subject.uses} uses, {self.name} takes from {self.promotion_accesses}"
        elif self.promotion_threshold is not None and (warmth := subject.heat) >= self.promotion_threshold:
            why = f"heat: {warmth:.2f}, {self.name} takes from {self.promotion_threshold:g}"
        else:
            return ""
        return why if self._may_take(subject, space) else ""

    def copies(self, subject: Subject, space: Space) -> str:
        """Why any file gets a copy here; ``""``: it does not."""
        if self.copy_accesses is None or subject.uses < self.copy_accesses or not self._may_take(subject, space):
            return ""
        return f"copies: {subject.uses} uses, {self.name} copies from {self.copy_accesses}"

    def _may_take(self, subject: Subject, space: Space) -> bool:
        return (
            (self.max_size is None or subject.size <= self.max_size)
            and space.fits(self.name, subject.size)
            and not self.leaves(subject, space)
        )

    def prospects(self, subject: Subject) -> Iterator[Prospect]:
        """When each of the rules applies."""
        for rule, threshold, value in (
            ("age", self.age_threshold, subject.age),
            ("idle", self.idle_threshold, subject.idle),
        ):
            if threshold is not None:
                what = "changed" if rule == "age" else "used"
                yield Prospect(
                    rule, self.name, "leaves", max(0.0, threshold - value), f"last {what} {span(threshold)} ago"
                )
        if self.demotion_threshold is not None:
            due = self._cools(self.demotion_threshold, subject)
            yield Prospect("heat", self.name, "leaves", due, f"heat below {self.demotion_threshold:g}")
        for rule, number in (("accesses", self.promotion_accesses), ("copies", self.copy_accesses)):
            if number is not None:
                met = 0.0 if subject.uses >= number else None
                yield Prospect(rule, self.name, "enters", met, f"{number} uses or more")
        if self.promotion_threshold is not None:
            met = 0.0 if subject.heat >= self.promotion_threshold else None
            yield Prospect("heat", self.name, "enters", met, f"heat of {self.promotion_threshold:g} or more")
        if self.replication == "all":
            yield Prospect("replication", self.name, "stays", 0.0, "every file")
        elif self.replication == "high_value":
            met = 0.0 if self.replicates(subject) else None
            ends = self._cools(self.high_value, subject) if met is not None else None
            yield Prospect("replication", self.name, "stays", met, f"heat above {self.high_value:g}", ends)

    @staticmethod
    def _cools(threshold: float, subject: Subject) -> float | None:
        """Seconds until the heat is below; None: it will not be."""
        cold = cools_below(threshold, subject.uses, subject.span, subject.weights)
        return None if cold == math.inf else max(0.0, cold - subject.idle)


def span(seconds: float) -> str:
    """A duration for people: ``"31.0 d"``, ``"2.5 h"``, ``"12 s"``."""
    if seconds >= DAY:
        return f"{seconds / DAY:.1f} d"
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds:.0f} s"
