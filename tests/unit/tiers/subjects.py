"""Records and policies that the tests of the rules share."""

from __future__ import annotations

from collections.abc import Iterable

from fsdriver.cache.heat import DAY, Uses
from fsdriver.tiers.records import Copy, CopyState, Move, Record

NOW = 1_700_000_000.0
"""The fake clock: `time.time` of the tests."""


def record(
    *tiers: str, age: float = 0.0, idle: float = 0.0, uses: int = 1, size: int = 100, pin: str | None = None,
    span: float = 0.0, key: str = "k", **states: CopyState,
) -> Record:  # fmt: skip
    """An object with good copies in ``tiers``; ages in seconds before `NOW`."""
    copies = {tier: Copy(f"{tier}-1") for tier in tiers} | {tier: Copy("x", state) for tier, state in states.items()}
    used = Uses(NOW - idle - span, NOW - idle, uses) if uses else Uses(0.0, 0.0, 0)
    return Record(key, "v1", size, int((NOW - age) * 1e9), copies, uses=used, pin=pin)


def days(number: float) -> float:
    return number * DAY


def applied(one: Record, moves: Iterable[Move]) -> Record:
    """The record once the mover has made the moves: each target verified before the others go."""
    for move in moves:
        assert move.version == one.version
        assert move.target not in move.leaves
        assert one.holders(), "nothing to copy from"
        if move.target not in one.holders():
            one = one.with_copy(move.target, Copy("made"))
        for tier in move.leaves:
            one = one.with_copy(tier, None)
    return one


def short(moves: Iterable[Move]) -> list[tuple[str, tuple[str, ...], str]]:
    """Target, tiers that give it up, and the rule."""
    return [(move.target, move.leaves, move.reason.partition(":")[0]) for move in moves]
