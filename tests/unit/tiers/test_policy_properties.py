"""What holds for every policy, every object and every time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fsdriver.cache.heat import DAY, DEFAULT_WEIGHTS, YOUNGEST, HeatWeights, cools_below, heat
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.records import CopyState, Record
from fsdriver.tiers.rules import TierRules

from .subjects import NOW, applied, record

NAMES = ("a", "b", "c", "d")
TIMES = st.sampled_from([0.0, 1.0, 60.0, 3600.0, DAY, 30 * DAY]) | st.floats(0, 100 * DAY)
HEATS = st.none() | st.sampled_from([0.7, 0.85, 2.0, 5.0]) | st.floats(0, 30)
COUNTS = st.none() | st.integers(1, 10)


@st.composite
def tier_rules(draw: Any, name: str, role: Any) -> TierRules:
    low, high = draw(HEATS), draw(HEATS)
    if low is not None and high is not None:
        low, high = (min(low, high), max(low, high)) if low != high else (low, None)
    return TierRules(
        name, draw(role), max_size=draw(st.none() | st.integers(0, 200)), age_threshold=draw(st.none() | TIMES),
        idle_threshold=draw(st.none() | TIMES), demotion_threshold=low, promotion_accesses=draw(COUNTS),
        promotion_threshold=high, copy_accesses=draw(COUNTS),
        replication=draw(st.sampled_from(["none", "none", "high_value", "all"])), high_value=draw(st.floats(0, 10)),
    )  # fmt: skip


@st.composite
def policies(draw: Any) -> Policy:
    names = NAMES[: draw(st.integers(1, 4))]
    store = draw(st.sampled_from(names))
    roles = st.sampled_from(["store", "store", "cache", "replica"])
    return Policy([draw(tier_rules(name, st.just("store") if name == store else roles)) for name in names])


@st.composite
def records(draw: Any) -> Record:
    states = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*[CopyState.GOOD] * 4, *CopyState])))
    return record(
        age=draw(TIMES), idle=draw(TIMES), uses=draw(st.integers(0, 12)), size=draw(st.integers(0, 300)), span=draw(TIMES),
        pin=draw(st.none() | st.none() | st.sampled_from([*NAMES, "other"])), **states,
    )  # fmt: skip


@given(policies(), records())
def test_no_rule_leaves_an_object_without_a_good_copy(policy: Policy, one: Record) -> None:
    stores = {rules.name for rules in policy.tiers if rules.role == "store"}
    names = {rules.name for rules in policy.tiers}
    moves = policy.owed(one, NOW)
    assert len({move.target for move in moves}) == len(moves)
    assert moves == [] or names & set(one.holders()), "nothing to copy from"
    for move in moves:
        assert {move.target, *move.leaves} <= names
        if move.leaves:
            assert move.target in stores
        assert one.copies.get(move.target) is None or one.copies[move.target].state in {"good", "corrupt"}
    after = applied(one, moves)
    for done in range(len(moves) + 1):
        assert bool(names & set(applied(one, moves[:done]).holders())) == bool(names & set(one.holders()))
    if stores & set(one.holders()):
        assert stores & set(after.holders())


@given(policies(), records())
def test_a_pinned_object_never_moves(policy: Policy, one: Record) -> None:
    if one.pin is not None:
        moves = policy.owed(one, NOW)
        assert all(not move.leaves for move in moves)
        assert {move.reason.partition(":")[0] for move in moves} <= {"pin", "replication", "repair"}
        assert set(one.holders()) <= set(applied(one, moves).holders())


@given(policies(), records())
def test_after_the_moves_nothing_is_left_to_do(policy: Policy, one: Record) -> None:
    assert policy.owed(applied(one, policy.owed(one, NOW)), NOW) == []


@given(policies(), records(), st.lists(st.floats(0, 200 * DAY), max_size=6))
def test_what_left_a_tier_does_not_come_back_without_a_use(policy: Policy, one: Record, later: list[float]) -> None:
    left: set[str] = set()
    for moment in sorted(later):
        moves = policy.owed(one, NOW + moment)
        assert left.isdisjoint(move.target for move in moves)
        left |= {tier for move in moves for tier in move.leaves}
        one = applied(one, moves)


@given(policies(), records(), st.floats(0, 1))
def test_what_is_foretold_happens_and_nothing_before(policy: Policy, one: Record, share: float) -> None:
    one = applied(one, policy.owed(one, NOW))
    explained = policy.explain(one, NOW)
    assert explained.moves == []
    if explained.next_due is None:
        assert policy.owed(one, NOW + share * 1000 * DAY) == []
    else:
        assert policy.owed(one, NOW + explained.next_due + 1.0) == explained.next_moves != []
        before = explained.next_due * share
        if before < explained.next_due - 1.0:
            assert policy.owed(one, NOW + before) == []


@given(st.integers(0, 50), TIMES, st.floats(0.01, 100), st.floats(0, 3), st.floats(0.01, 100))
def test_when_it_cools_below_is_when_heat_says(
    count: int, age: float, threshold: float, boost: float, hours: float
) -> None:
    weights = HeatWeights(boost=max(1.0, boost), decay_hours=hours)
    idle = cools_below(threshold, count, age, weights)
    if idle == float("inf"):
        assert heat(count, age, 1e15, weights) >= threshold * (1 - 1e-9)
        return
    assert heat(count, age, idle + 1.0 + idle * 1e-6, weights) <= threshold * (1 + 1e-9)
    if idle > 2.0:
        assert heat(count, age, idle * (1 - 1e-6) - 1.0, weights) >= threshold * (1 - 1e-9)


def test_a_use_long_ago_is_no_cooler_than_the_formula() -> None:
    assert cools_below(2.0, 1, YOUNGEST, DEFAULT_WEIGHTS) > 0.0
    assert cools_below(3.0, 1, YOUNGEST, DEFAULT_WEIGHTS) == 0.0
