"""What the rules of a stack decide, by a clock that stands still."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cache.heat import DAY, HOUR, heat
from fsdriver.config import PolicyConfig
from fsdriver.errors import ConfigError
from fsdriver.tiers.catalog import Holdings
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.records import CopyState, Record
from fsdriver.tiers.rules import TierRules

from .subjects import NOW, applied, days, record, short

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "cache_vectors.json").read_text())
STACK = ("nvme", "hot", "cold")


def policy(tiers: tuple[str, ...] = STACK, replicate: tuple[str, ...] = (), **keys: Any) -> Policy:
    return Policy.of(PolicyConfig.model_validate(keys), tiers, replicate)


def tier(**keys: Any) -> dict[str, Any]:
    """``[policy.NAME.tier.…]`` of several tiers."""
    return {"tier": keys}


@pytest.mark.parametrize(("age", "moves"), [(0, []), (3600, []), (3600.5, [("cold", ("hot",), "age")])])
def test_the_age_rule_moves_what_is_older(age: float, moves: list[Any]) -> None:
    assert short(policy(("hot", "cold"), age_threshold=3600).owed(record("hot", age=age), NOW)) == moves


@pytest.mark.parametrize(
    ("one", "moves"),
    [
        # 5 uses (the put and 4 gets) copy into s3; the local copies stay.
        (record("memory", "disk", uses=4), []),
        (record("memory", "disk", uses=5), [("s3", (), "copies")]),
        (record("memory", "disk", "s3", uses=5), []),
        # 60 idle days: a copy there that is verified, then it leaves memory and disk.
        (record("memory", "disk", idle=days(59.9)), [("disk", ("memory",), "idle")]),
        (record("disk", idle=days(59.9)), []),
        (record("memory", "disk", idle=days(60)), [("s3", ("memory", "disk"), "idle")]),
        (record("memory", "disk", "s3", idle=days(60), uses=9), [("s3", ("memory", "disk"), "idle")]),
        (record("s3", idle=days(400), uses=9), []),
        # A later use brings it back up.
        (record("s3", idle=0, uses=10), [("memory", (), "accesses")]),
    ],
)
def test_the_rules_of_uses_and_idle_days(one: Record, moves: list[Any]) -> None:
    rules = policy(
        ("memory", "disk", "s3"),
        **tier(
            memory={"role": "cache", "idle_threshold": "30d", "promotion_accesses": 3},
            disk={"idle_threshold": "60d"},
            s3={"copy_accesses": 5},
        ),
    )
    assert short(rules.owed(one, NOW)) == moves


@pytest.mark.parametrize(
    ("one", "moves"),
    [
        (record("nvme", uses=1), []),  # heat 2.0
        (record("nvme", uses=1, idle=HOUR), [("hot", ("nvme",), "heat")]),  # 0.85
        (record("nvme", uses=1, idle=30 * DAY), [("cold", ("nvme",), "heat")]),  # 0.70…
        (record("nvme", uses=10, idle=30 * DAY), []),  # 22: what was used often stays warm
        (record("cold", uses=2), []),  # 4.6
        (record("cold", uses=3), [("nvme", (), "heat")]),  # 7.9: to the hottest that wants it
        (record("hot", "cold", uses=3), [("nvme", (), "heat")]),
        (record("nvme", "cold", uses=3), []),
        (record("cold", uses=3, size=1001), [("hot", (), "heat")]),  # too large for the hottest
    ],
)
def test_heat_moves_both_ways(one: Record, moves: list[Any]) -> None:
    rules = policy(
        promotion_threshold=5,
        demotion_threshold=1,
        **tier(nvme={"max_size": 1000}, hot={"demotion_threshold": 0.75, "promotion_threshold": 6}),
    )
    assert short(rules.owed(one, NOW)) == moves


@pytest.mark.parametrize(("number", "replicates"), [(0, False), (1, False), (2, True)])
def test_what_is_of_high_value_is_replicated(number: int, replicates: bool) -> None:
    case = VECTORS["tiered_heat_score_at_access"]["cases"][number]
    span = case["access_offsets_s"][-1]
    one = record("nvme", uses=case["frequency"], span=span)
    rules = policy(replication="high_value")
    assert rules.subject(one, NOW).heat == pytest.approx(case["heat_score"], rel=1e-9)
    assert [move.target for move in rules.owed(one, NOW)] == (["hot", "cold"] if replicates else [])
    assert all(not move.leaves for move in rules.owed(one, NOW))


def test_replication_names_tiers_and_wins_over_ages() -> None:
    rules = policy(("nvme", "hot"), ("backup", "hot"), age_threshold="1h", replication="none")
    one = record("nvme")
    assert short(rules.owed(one, NOW)) == [("hot", (), "replication"), ("backup", (), "replication")]
    old = record("nvme", "hot", "backup", age=DAY)
    assert short(rules.owed(old, NOW)) == [("hot", ("nvme",), "age")]
    assert policy(replication="none").owed(one, NOW) == []
    everywhere = policy(replication="all")
    assert [move.target for move in everywhere.owed(one, NOW)] == ["hot", "cold"]
    apart = policy(replication="all", **tier(hot={"replication": "none"}))
    assert [move.target for move in apart.owed(one, NOW)] == ["cold"]


def test_nothing_moves_down_to_a_replica() -> None:
    rules = policy(("nvme",), ("backup",), idle_threshold="1h")
    assert rules.owed(record("nvme", "backup", idle=DAY), NOW) == []
    assert [move.target for move in rules.owed(record("backup"), NOW)] == ["nvme"], "a store has to have it"


@pytest.mark.parametrize(
    ("one", "moves"),
    [
        (record("nvme", age=days(99), idle=days(99), pin="nvme"), []),
        (record("cold", uses=99, pin="cold"), []),
        (record("cold", uses=99, pin="hot"), [("hot", (), "pin")]),
        (record("hot", age=days(99), pin="elsewhere"), []),
    ],
)
def test_a_pin_wins(one: Record, moves: list[Any]) -> None:
    rules = policy(age_threshold="1d", idle_threshold="1d", promotion_accesses=2)
    assert short(rules.owed(one, NOW)) == moves


def test_a_cache_is_never_alone() -> None:
    rules = policy(**tier(nvme={"role": "cache"}))
    assert short(rules.owed(record("nvme"), NOW)) == [("hot", (), "role")]
    with pytest.raises(ConfigError, match="only copy"):
        policy(("nvme",), **tier(nvme={"role": "cache"}))


@pytest.mark.parametrize(
    ("one", "moves"),
    [
        (record("cold", hot=CopyState.CORRUPT), [("hot", (), "repair")]),
        (record("cold", nvme=CopyState.CORRUPT, idle=DAY), [("cold", ("nvme",), "idle")]),
        (record("nvme", idle=DAY, hot=CopyState.SHADOWED), [("cold", ("nvme",), "idle")]),
        (record("nvme", idle=DAY, hot=CopyState.OWED, cold=CopyState.SHADOWED), []),
        (record(hot=CopyState.CORRUPT), []),
        (record("gone", idle=DAY), []),
        (Record("k", "", 0, 0, record("hot").copies), []),
    ],
)
def test_copies_that_are_not_good(one: Record, moves: list[Any]) -> None:
    assert short(policy(idle_threshold="1h", **tier(hot={"idle_threshold": "2d"})).owed(one, NOW)) == moves


def test_what_was_never_used_is_idle_since_it_changed() -> None:
    rules = policy(idle_threshold="1d")
    assert rules.owed(record("nvme", age=HOUR, uses=0), NOW) == []
    assert short(rules.owed(record("nvme", age=days(2), uses=0), NOW)) == [("cold", ("nvme",), "idle")]
    assert rules.owed(record("nvme", age=-days(2), uses=0), NOW) == [], "a time to come is now"


def test_where_new_files_enter() -> None:
    limited = policy(**tier(nvme={"max_bytes": 1000}, hot={"max_bytes": 5000}))
    assert limited.enters(1000, {}) == "nvme"
    assert limited.enters(1001, {}) == "hot"
    assert limited.enters(10, {"nvme": Holdings(1, 1001)}) == "hot"
    assert limited.enters(6000, {}) == "cold"
    assert policy(enter="hot").enters(1, {}) == "hot"
    assert policy(("backup", "hot"), **tier(backup={"role": "replica"})).enters(1, {}) == "hot"
    with pytest.raises(ConfigError, match="'tape'"):
        policy(enter="tape")


def test_it_explains_what_moves_now() -> None:
    explained = policy(age_threshold="1d", idle_threshold="30d").explain(record("nvme", age=days(2)), NOW)
    assert short(explained.moves) == [("cold", ("nvme",), "age")]
    assert explained.moves[0].reason == "age: changed 2.0 d ago, nvme keeps 1.0 d"
    assert explained.next_moves == []


@pytest.mark.parametrize(
    ("keys", "one", "rule", "due"),
    [
        ({"age_threshold": "10d"}, record("nvme", age=days(4)), "age", days(6)),
        ({"idle_threshold": "10d"}, record("nvme", idle=days(4), uses=50), "idle", days(6)),
        ({"idle_threshold": "10d", "age_threshold": "9d"}, record("nvme", idle=days(4)), "idle", days(6)),
        ({"demotion_threshold": 1.0}, record("nvme"), "heat", HOUR),  # the boost ends
        ({"demotion_threshold": 1.9}, record("nvme"), "heat", HOUR * (0.3 / (1.9 / 2 - 0.7) - 1)),
        ({"demotion_threshold": 0.75}, record("nvme"), "heat", HOUR * (0.3 / 0.05 - 1)),
        ({"demotion_threshold": 0.75}, record("nvme", idle=2 * HOUR), "heat", HOUR * (0.3 / 0.05 - 3)),
        ({"demotion_threshold": 0.5}, record("nvme"), None, None),  # it never gets as cold
        ({"promotion_accesses": 5}, record("cold"), None, None),
        # Replication holds it until it has cooled down.
        (
            {"replication": "high_value", "age_threshold": "1h", "tier": {"nvme": {"replication": "high_value"}}},
            record("nvme", "hot", "cold", uses=3, age=DAY),
            "age",
            HOUR,
        ),
        ({"age_threshold": "1d"}, record("nvme", pin="nvme"), None, None),
    ],
)
def test_it_explains_what_comes_next(keys: dict[str, Any], one: Record, rule: str | None, due: float | None) -> None:
    explained = policy(**keys).explain(one, NOW)
    assert explained.moves == []
    assert [move.reason.partition(":")[0] for move in explained.next_moves] == ([rule] if rule else [])
    assert explained.next_due == (due if due is None else pytest.approx(due, rel=1e-6))


def test_it_explains_every_rule() -> None:
    rules = policy(
        ("nvme", "cold"), ("backup",), age_threshold="3d", promotion_threshold=8, demotion_threshold=0.5,
        **tier(nvme={"promotion_accesses": 4, "idle_threshold": "2d"}, cold={"copy_accesses": 1, "age_threshold": "5d"}),
    )  # fmt: skip
    explained = rules.explain(record("nvme", "backup"), NOW)
    assert explained.heat == heat(1, 0.0, 0.0)
    assert [(one.tier, one.rule, one.effect, one.due) for one in explained.prospects] == [
        ("cold", "copies", "enters", 0.0),
        ("backup", "replication", "stays", 0.0),
        ("nvme", "idle", "leaves", days(2)),
        ("nvme", "age", "leaves", days(3)),
        ("nvme", "heat", "leaves", None),
        ("cold", "heat", "enters", None),
    ]
    assert short(explained.moves) == [("cold", (), "copies")]
    both = rules.explain(record("nvme", "cold", "backup"), NOW)
    assert ("nvme", "idle", days(2)) in [(one.tier, one.rule, one.due) for one in both.prospects]
    assert both.moves == []
    assert both.next_due == days(2)
    assert short(both.next_moves) == [("cold", ("nvme",), "idle")]
    assert rules.explain(record("nvme", pin="tape"), NOW).held == "pinned to tape, which is no tier of the route"
    assert rules.explain(record("elsewhere"), NOW).held == "no tier of the route has a good copy"


def test_tables_of_tiers_go_before_the_policy() -> None:
    rules = policy(
        ("nvme", "hot"), ("backup",), idle_threshold="1d", max_size="1 MiB", high_value=7, tier_limits={"nvme": 10},
        **tier(hot={"max_bytes": 20, "idle_threshold": "2d"}, backup={"max_bytes": 30}),
    )  # fmt: skip
    assert rules.tiers == (
        TierRules("nvme", max_bytes=10, max_size=1 << 20, idle_threshold=DAY, high_value=7),
        TierRules("hot", max_bytes=20, max_size=1 << 20, idle_threshold=2 * DAY, high_value=7),
        TierRules("backup", "replica", 30, 1 << 20, replication="all", high_value=7),
    )


def test_asked_again_it_wants_nothing_more() -> None:
    rules = policy(promotion_accesses=2, idle_threshold="1h")
    one = record("cold", uses=2)
    up = applied(one, rules.owed(one, NOW))
    assert up.holders() == ["cold", "nvme"]
    assert rules.owed(up, NOW) == []
    down = applied(up, rules.owed(up, NOW + DAY))
    assert down.holders() == ["cold"]
    assert rules.owed(down, NOW + 2 * DAY) == [], "what left comes back after a use"
