"""A sweep over a catalog: what it yields, and what full tiers give up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsdriver.config import PolicyConfig
from fsdriver.runtime import run
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.records import Move, Record
from fsdriver.tiers.sqlite_catalog import SqliteCatalog
from fsdriver.tiers.sweeping import STEPS, sweep

from .catalog_suite import STACK, collect
from .subjects import NOW, applied, days, record


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    made = SqliteCatalog(tmp_path / "tiers.db")
    yield made
    run(made.close())


def policy(**keys: Any) -> Policy:
    return Policy.of(PolicyConfig.model_validate(keys), ("nvme", "hot", "cold"))


def limited(size: int, **keys: Any) -> Policy:
    return policy(tier={"nvme": {"max_bytes": size}}, **keys)


def swept(catalog: SqliteCatalog, rules: Policy, now: float = NOW) -> list[Move]:
    return collect(sweep(catalog, STACK, rules, now))


def carry_out(catalog: SqliteCatalog, moves: list[Move]) -> None:
    for move in moves:
        one = run(catalog.get(STACK, move.key))
        assert one is not None
        assert run(catalog.swap(STACK, applied(one, [move]), one.serial)) is not None


def held(catalog: SqliteCatalog, tier: str) -> set[str]:
    return {one.key for one in collect(catalog.below(STACK, "")) if tier in one.holders()}


def test_it_yields_what_the_policy_wants(catalog: SqliteCatalog) -> None:
    records = [record("nvme", key=f"d{number % 2}/{number}", age=days(number)) for number in range(10)]
    run(catalog.adopt(STACK, records))
    rules = policy(age_threshold="6d")
    moves = swept(catalog, rules)
    assert [(move.key, move.target, move.leaves) for move in moves] == [
        ("d0/8", "cold", ("nvme",)), ("d1/7", "cold", ("nvme",)), ("d1/9", "cold", ("nvme",)),
    ]  # fmt: skip
    assert [move.key for move in collect(sweep(catalog, STACK, rules, NOW, "d1/", "d1/7"))] == ["d1/9"]
    carry_out(catalog, moves)
    assert swept(catalog, rules) == []


def by_warmth(count: int, size: int = 100) -> list[Record]:
    """Objects of the hottest tier, each warmer than the one before, in mixed order of keys."""
    keys = [f"{number:03}" for number in range(count)]
    random.Random(1).shuffle(keys)
    return [
        replace(record("nvme", key=key, uses=2, span=days(number), idle=days(1)), size=size)
        for number, key in enumerate(keys)
    ]


def test_a_full_tier_gives_up_its_coldest(catalog: SqliteCatalog) -> None:
    records = by_warmth(100)
    run(catalog.adopt(STACK, records))
    rules = limited(5000)
    moves = swept(catalog, rules)
    assert len(moves) == 55, "down to nine tenths"
    gone = {move.key for move in moves}
    warmest = max(one.uses.heat(NOW) for one in records if one.key in gone)
    assert warmest <= min(one.uses.heat(NOW) for one in records if one.key not in gone) * 2 ** (1 / STEPS)
    assert {(move.target, move.leaves) for move in moves} == {("hot", ("nvme",))}
    assert all(move.reason.startswith("limit: ") for move in moves)
    carry_out(catalog, moves)
    assert run(catalog.holdings(STACK))["nvme"].bytes == 4500
    assert swept(catalog, rules) == []


def test_what_is_not_over_its_limit_gives_up_nothing(catalog: SqliteCatalog) -> None:
    run(catalog.adopt(STACK, by_warmth(50)))
    assert swept(catalog, limited(5000)) == []


def test_what_is_owed_already_counts(catalog: SqliteCatalog) -> None:
    run(catalog.adopt(STACK, by_warmth(100)))
    rules = limited(5000)
    run(catalog.owe(STACK, swept(catalog, rules)))
    assert swept(catalog, rules) == []


def test_equally_cold_ones_go_until_there_is_room(catalog: SqliteCatalog) -> None:
    run(catalog.adopt(STACK, [record("nvme", key=str(number), idle=days(1)) for number in range(100)]))
    assert len(swept(catalog, limited(5000))) == 55


def test_pinned_and_replicated_ones_stay_in_a_full_tier(catalog: SqliteCatalog) -> None:
    records = by_warmth(100)
    pinned = [replace(one, pin="nvme") for one in records[:50]]
    run(catalog.adopt(STACK, pinned + records[50:]))
    moves = swept(catalog, limited(5000))
    assert {move.key for move in moves} == {one.key for one in records[50:]}
    rules = policy(tier={"nvme": {"max_bytes": 5000, "replication": "all"}})
    assert swept(catalog, rules) == []


def test_promotion_leaves_a_tenth_free(catalog: SqliteCatalog) -> None:
    run(catalog.adopt(STACK, [record("cold", key=f"{number:03}", uses=9) for number in range(100)]))
    rules = limited(5000, promotion_accesses=5)
    moves = swept(catalog, rules)
    assert [move.target for move in moves].count("nvme") == 45
    carry_out(catalog, moves)
    assert swept(catalog, rules) == []


def test_full_tiers_settle(catalog: SqliteCatalog) -> None:
    sizes = random.Random(2)
    records = [replace(one, size=sizes.randrange(1, 400)) for one in by_warmth(200)]
    run(catalog.adopt(STACK, records))
    rules = policy(
        promotion_accesses=2, tier={"nvme": {"max_bytes": 9000}, "hot": {"max_bytes": 7000, "promotion_accesses": 2}}
    )
    for _ in range(4):
        moves = swept(catalog, rules)
        carry_out(catalog, moves)
        if not moves:
            break
    assert moves == []
    assert run(catalog.holdings(STACK))["nvme"].bytes <= 9000
    assert run(catalog.holdings(STACK))["hot"].bytes <= 7000
    assert all(one.holders() for one in collect(catalog.below(STACK, "")))
