"""A pass over all objects of a stack that tells which moves its policy wants. Memory does not grow with their number.

A tier over its limit gives up its coldest files. Which these are is found by a pass of its own, which only counts bytes by heat.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from fsdriver.tiers.catalog import Catalog, Holdings
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.records import Move, Record
from fsdriver.tiers.rules import Subject, TierRules

FULL: Final = 0.9
"""Share of its limit down to which a tier gives files up, and up to which it takes promoted ones."""
STEPS: Final = 16
"""Classes that a doubling of heat is divided into, where the coldest files of a tier are looked for."""


@dataclass(slots=True)
class Excess:
    """What a tier over its limit gives up.

    Attributes
    ----------
    excess : int
        Bytes that have to go.
    by_class : dict of int to int
        Bytes that may go, by class of heat.
    edge : int or float
        Files of colder classes go,
    left : int
        and of this one as many as make these bytes.
    """

    excess: int
    by_class: dict[int, int] = field(default_factory=dict)
    edge: float = -math.inf
    left: int = 0

    def count(self, subject: Subject) -> None:
        """One more file that may go."""
        place = _class(subject.heat)
        self.by_class[place] = self.by_class.get(place, 0) + subject.size

    def settle(self) -> None:
        """Say what goes, once all are counted."""
        left = self.excess
        for place in sorted(self.by_class):
            self.edge, self.left = place, left
            left -= self.by_class[place]
            if left <= 0:
                return
        self.edge, self.left = math.inf, 0

    def went(self, subject: Subject) -> None:
        """It goes."""
        if _class(subject.heat) == self.edge:
            self.left -= subject.size

    def includes(self, subject: Subject) -> bool:
        """Whether this file goes."""
        place = _class(subject.heat)
        return place < self.edge or (place == self.edge and self.left > 0)


class Room:
    """How full the tiers of a stack are, the moves counted in that are owed: the `Space` of a sweep.

    Parameters
    ----------
    policy : Policy
    holdings : mapping of str to Holdings
    """

    def __init__(self, policy: Policy, holdings: Mapping[str, Holdings]) -> None:
        self._limits = {rules.name: rules.max_bytes for rules in policy.tiers if rules.max_bytes is not None}
        self._bytes = {tier: holdings[tier].bytes if tier in holdings else 0 for tier in self._limits}
        self.excess: dict[str, Excess] = {}

    def note(self, moves: Iterable[Move], held: Collection[str] = (), subject: Subject | None = None) -> None:
        """Count moves in. ``held``: tiers that have the object already; ``subject``: the object, in a sweep."""
        for move in moves:
            if move.target in self._bytes and move.target not in held:
                self._bytes[move.target] += move.size
            for tier in move.leaves:
                if tier in self._bytes:
                    self._bytes[tier] -= move.size
                if subject is not None and tier in self.excess:
                    self.excess[tier].went(subject)

    def over(self) -> dict[str, int]:
        """Bytes that tiers over their limits have to give up, so that a tenth is free."""
        return {
            tier: self._bytes[tier] - int(limit * FULL)
            for tier, limit in self._limits.items()
            if self._bytes[tier] > limit
        }

    def fits(self, tier: str, size: int) -> bool:
        limit = self._limits.get(tier)
        return limit is None or self._bytes[tier] + size <= limit * FULL

    def takes(self, tier: str, size: int) -> bool:
        limit = self._limits.get(tier)
        return limit is None or self._bytes[tier] + size <= limit

    def gives_up(self, tier: str, subject: Subject) -> bool:
        excess = self.excess.get(tier)
        return excess is not None and self._bytes[tier] > self._limits[tier] * FULL and excess.includes(subject)


async def room(catalog: Catalog, stack: str, policy: Policy, now: float) -> Room:
    """The tiers of a stack as they are and will be when what is owed is done; what the full ones give up is settled."""
    made = Room(policy, await catalog.holdings(stack))
    async with aclosing(catalog.moves(stack)) as owed:
        async for move in owed:
            made.note([move])
    made.excess = {tier: Excess(size) for tier, size in made.over().items()}
    if made.excess:
        pressed = [rules for rules in policy.tiers if rules.name in made.excess]
        async with aclosing(catalog.below(stack, "")) as records:
            async for record in records:
                _count(record, policy, pressed, made, now)
        for excess in made.excess.values():
            excess.settle()
    return made


def _count(record: Record, policy: Policy, pressed: list[TierRules], room: Room, now: float) -> None:
    """Count a file in the tiers over their limits that may give it up."""
    subject = policy.subject(record, now)
    for rules in pressed:
        if rules.name in record.copies and policy.may_leave(record, rules, subject):
            room.excess[rules.name].count(subject)


async def sweep(
    catalog: Catalog, stack: str, policy: Policy, now: float, prefix: str = "", after: str = ""
) -> AsyncGenerator[Move]:
    """The moves that the policy wants at ``now`` (`time.time`), by key.

    Those that are owed already are among them: `Catalog.owe` passes over them.

    Parameters
    ----------
    prefix, after : str
        Look at keys that begin so and come later, as `Catalog.below` has them.
    """
    space = await room(catalog, stack, policy, now)
    async with aclosing(catalog.below(stack, prefix, after)) as records:
        async for record in records:
            moves = policy.owed(record, now, space)
            if moves:
                space.note(moves, record.holders(), policy.subject(record, now))
                for move in moves:
                    yield move


def _class(heat: float) -> int:
    return math.floor(math.log2(heat) * STEPS) if heat > 0.0 else -(1 << 30)
