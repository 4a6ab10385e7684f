"""What should happen to an object of a stack, and why: all rules of all tiers as one decision.

Of what applies, the first wins: a pin, replication, the limits, ages and thresholds at which a tier gives an object up, what
promotes it. A tier that would give an object up never takes it, and heat, ages and idle times change in one direction only as
long as nobody uses or changes it: what left a tier comes back after a use, not before. Asked again after the moves were made,
the rules give none.

Nothing here waits, reads a clock or changes anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fsdriver.cache.heat import DEFAULT_WEIGHTS, HeatWeights
from fsdriver.config import PolicyConfig
from fsdriver.errors import ConfigError
from fsdriver.tiers.catalog import Holdings
from fsdriver.tiers.records import CopyState, Move, Record
from fsdriver.tiers.rules import Prospect, Space, Subject, TierRules, Unlimited

ANYWHERE: Final = Unlimited()
_LATER: Final = 1.0
"""Seconds after the moment at which a rule is due, when `Policy.explain` looks what it does."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an object lies where it does, and what comes next.

    Attributes
    ----------
    heat : float
    moves : list of Move
        What should happen now.
    prospects : list of Prospect
        The rules by which it can leave the tiers that have it and enter the others: the next first, last those that do not apply
        without a use.
    next_moves : list of Move
        What should happen next if nobody uses or changes it, and there is nothing to do now.
    next_due : float or None
        When, in seconds from now; None: nothing will.
    held : str
        What keeps rules from applying: the pin; ``""`` for nothing.
    """

    heat: float
    moves: list[Move]
    prospects: list[Prospect]
    next_moves: list[Move] = field(default_factory=list)
    next_due: float | None = None
    held: str = ""


@dataclass(slots=True)
class _Plan:
    """Where an object should be.

    Attributes
    ----------
    stays : list of TierRules
        Hold it now, and go on.
    enters, leaves : dict of TierRules to str
        With the reasons.
    """

    stays: list[TierRules]
    enters: dict[str, str]
    leaves: dict[str, str]


class Policy:
    """The rules of a stack.

    Parameters
    ----------
    tiers : sequence of TierRules
        Hot to cold; replicas, which nothing moves down to, anywhere.
    enter : str, optional
        The tier that new files enter; by default the first that is no replica.
    weights : HeatWeights, optional

    Raises
    ------
    ConfigError
        No tier may hold an only copy, or ``enter`` is none of them.
    """

    def __init__(
        self, tiers: Sequence[TierRules], enter: str | None = None, weights: HeatWeights = DEFAULT_WEIGHTS
    ) -> None:
        self.tiers = tuple(tiers)
        self.weights = weights
        self._places = {rules.name: place for place, rules in enumerate(self.tiers)}
        self._stores = [rules for rules in self.tiers if rules.role == "store"]
        if not self._stores:
            raise ConfigError('no tier of the route may hold an only copy; give one of them role = "store"')
        if enter is not None and enter not in self._places:
            raise ConfigError(f"new files cannot enter {enter!r}: it is no tier of the route")
        self._bottom = self._stores[-1]
        self._replicating = [rules for rules in self.tiers if rules.replication != "none"]
        self._copying = [rules for rules in self.tiers if rules.copy_accesses is not None]
        self._promoting = [
            rules
            for rules in self.tiers
            if rules.role != "replica"
            and (rules.promotion_accesses is not None or rules.promotion_threshold is not None)
        ]
        self._start = self._places[enter] if enter is not None else 0

    @classmethod
    def of(
        cls,
        config: PolicyConfig,
        tiers: Sequence[str],
        replicate: Sequence[str] = (),
        weights: HeatWeights = DEFAULT_WEIGHTS,
    ) -> Policy:
        """As configured.

        Parameters
        ----------
        tiers, replicate : sequence of str
            Those of the route.
        """
        return cls([_rules(config, name, tiers, replicate) for name in _all(tiers, replicate)], config.enter, weights)

    def enters(self, size: int, holdings: Mapping[str, Holdings]) -> str:
        """The tier that a new file goes to: the first, from ``enter`` on, that is not over its limit and can hold it."""
        for rules in self.tiers[self._start :]:
            if rules.role == "replica":
                continue
            held = holdings.get(rules.name)
            full = rules.max_bytes is not None and (
                size > rules.max_bytes or (held is not None and held.bytes > rules.max_bytes)
            )
            if not full:
                return rules.name
        return self._bottom.name

    def subject(self, record: Record, now: float) -> Subject:
        """What the rules see of a record at ``now`` (`time.time`)."""
        return Subject.of(record, now, self.weights)

    def may_leave(self, record: Record, rules: TierRules, subject: Subject) -> bool:
        """Whether a tier over its limit may give this object up."""
        copy = record.copies[rules.name]
        return (
            copy.state is CopyState.GOOD
            and rules is not self._bottom
            and record.pin is None
            and not rules.replicates(subject)
        )

    def owed(self, record: Record, now: float, space: Space = ANYWHERE) -> list[Move]:
        """The moves that should be made now; each leaves a good copy in a store.

        A move whose target has a good copy already asks for this copy to be verified before others go.
        """
        if record.removed:
            return []
        good, corrupt = self._held(record)
        if not good:
            return []
        plan = self._plan(record, self.subject(record, now), space, good, corrupt)
        return self._moves(record, plan) if plan.enters or plan.leaves else []

    def _held(self, record: Record) -> tuple[list[TierRules], list[TierRules]]:
        """Tiers with good and with corrupt copies, hot to cold."""
        copies = record.copies
        good, corrupt = [], []
        for rules in self.tiers:
            if (copy := copies.get(rules.name)) is not None:
                if copy.state is CopyState.GOOD:
                    good.append(rules)
                elif copy.state is CopyState.CORRUPT:
                    corrupt.append(rules)
        return good, corrupt

    def _plan(
        self, record: Record, subject: Subject, space: Space, good: list[TierRules], corrupt: list[TierRules]
    ) -> _Plan:
        enters = {
            rules.name: why
            for rules in self._replicating
            if (why := rules.replicates(subject)) and rules not in good and _free(record, rules)
        }
        if record.pin is not None:
            pinned = self._places.get(record.pin)
            if pinned is not None and self.tiers[pinned] not in good and _free(record, self.tiers[pinned]):
                enters[record.pin] = f"pin: to {record.pin}"
            enters |= {rules.name: f"repair: the copy in {rules.name} is corrupt" for rules in corrupt}
            return _Plan(good, enters, {})
        leaves = {}
        for rules in (*good, *corrupt):
            if rules is not self._bottom and (why := rules.leaves(subject, space)):
                leaves[rules.name] = why
            elif rules in corrupt:
                enters.setdefault(rules.name, f"repair: the copy in {rules.name} is corrupt")
        plan = _Plan([rules for rules in good if rules.name not in leaves], enters, leaves)
        self._promote(record, subject, space, good[0], plan)
        return plan

    def _promote(self, record: Record, subject: Subject, space: Space, hottest: TierRules, plan: _Plan) -> None:
        """Add those that copy it, the one that wants it, and, where no store would have it, the one it comes down to."""
        held = {rules.name for rules in plan.stays}
        for rules in self._copying:
            if rules.name not in held and _free(record, rules) and (why := rules.copies(subject, space)):
                plan.enters.setdefault(rules.name, why)
        places = [self._places[name] for name in (*held, *plan.enters)]
        lower = None if places else self._lower(record, subject, space, hottest, plan)
        edge = min(places) if places else self._places[lower.name] if lower is not None else 0
        for rules in self._promoting:
            if self._places[rules.name] >= edge:
                break
            if _free(record, rules) and (why := rules.wants(subject, space)):
                plan.enters[rules.name] = why
                break
        if any(rules.name in held or rules.name in plan.enters for rules in self._stores):
            return
        lower = lower or self._lower(record, subject, space, hottest, plan)
        if lower is not None:
            why = next(iter(plan.leaves.values()), f"role: {hottest.name} may not hold the only copy")
            plan.enters[lower.name] = why
            return
        for rules in reversed(self._stores):  # nowhere to go: it stays where it is
            if plan.leaves.pop(rules.name, None) is not None:
                plan.stays.append(rules)
                return
        plan.leaves.clear()

    def _lower(
        self, record: Record, subject: Subject, space: Space, hottest: TierRules, plan: _Plan
    ) -> TierRules | None:
        """The first colder store that would keep it, else the coldest of all."""
        for rules in self._stores[:-1]:
            if (
                self._places[rules.name] > self._places[hottest.name]
                and rules.name not in plan.leaves
                and _free(record, rules)
                and not rules.leaves(subject, space)
                and space.takes(rules.name, record.size)
            ):
                return rules
        return self._bottom if _free(record, self._bottom) else None

    def _moves(self, record: Record, plan: _Plan) -> list[Move]:
        """What makes it so: the tiers that give it up wait for one store that has it."""
        anchor = ""
        if plan.leaves:
            names = [rules.name for rules in plan.stays if rules.role == "store"]
            anchor = names[0] if names else next(rules.name for rules in self._stores if rules.name in plan.enters)
        targets = dict(plan.enters)
        if anchor and anchor not in targets:
            targets[anchor] = ""
        if plan.leaves:
            targets[anchor] = next(iter(plan.leaves.values()))
        gone = tuple(plan.leaves)
        return [
            Move(record.key, record.version, target, gone if target == anchor else (), why, record.size)
            for target, why in targets.items()
        ]

    def explain(self, record: Record, now: float, space: Space = ANYWHERE) -> Explanation:
        """Every rule and when it applies; what should happen now, or what next and when, if nobody uses or changes it."""
        subject = self.subject(record, now)
        prospects = sorted(self._prospects(record, subject), key=lambda one: math.inf if one.due is None else one.due)
        explanation = Explanation(subject.heat, self.owed(record, now, space), prospects, held=self._holding(record))
        if explanation.moves:
            return explanation
        for due in sorted({moment for one in prospects for moment in (one.due, one.ends) if moment is not None}):
            if moves := self.owed(record, now + due + _LATER, space):
                return replace(explanation, next_moves=moves, next_due=due)
        return explanation

    def _prospects(self, record: Record, subject: Subject) -> Iterator[Prospect]:
        """Of what can leave the tiers that have it, and enter the others."""
        good, corrupt = self._held(record)
        for rules in self.tiers:
            held = rules in good or rules in corrupt
            passed_over = "enters" if held else "leaves"
            for one in rules.prospects(subject):
                if one.effect != passed_over and not (one.effect == "leaves" and rules is self._bottom):
                    yield one

    def _holding(self, record: Record) -> str:
        if record.pin is None:
            return "" if any(self._held(record)[:1]) else "no tier of the route has a good copy"
        known = "" if record.pin in self._places else ", which is no tier of the route"
        return f"pinned to {record.pin}{known}"


def _free(record: Record, rules: TierRules) -> bool:
    """Whether nothing is in the way of a copy: no foreign object, none that still has to go."""
    copy = record.copies.get(rules.name)
    return copy is None or copy.state is CopyState.CORRUPT


def _all(tiers: Sequence[str], replicate: Sequence[str]) -> list[str]:
    return list(dict.fromkeys((*tiers, *replicate)))


def _rules(config: PolicyConfig, name: str, tiers: Sequence[str], replicate: Sequence[str]) -> TierRules:
    """Of one tier: what its own table says, else the policy's, as far as that is about tiers of its kind."""
    own = config.tier.get(name)
    given = {key: getattr(own, key) for key in own.model_fields_set} if own is not None else {}
    role = given.get("role") or ("store" if name in tiers else "replica")
    values = {"role": role, "max_bytes": config.tier_limits.get(name), "max_size": config.max_size}
    if role != "replica":
        for key in (
            "age_threshold",
            "idle_threshold",
            "demotion_threshold",
            "promotion_accesses",
            "promotion_threshold",
        ):
            values[key] = getattr(config, key)
    if name in replicate:
        values["replication"] = "all"
    elif role != "cache" and name != tiers[0]:
        values["replication"] = config.replication
    return TierRules(name, high_value=config.high_value, **{**values, **given})
