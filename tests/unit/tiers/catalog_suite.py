"""What every catalog of stacks does; run against SQLite and Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from fsdriver.cache.heat import Uses
from fsdriver.runtime import run
from fsdriver.tiers.catalog import Catalog, Holdings
from fsdriver.tiers.records import Copy, CopyState, Move, Record

T = TypeVar("T")
STACK = "stack|one"


def record(key: str, *tiers: str, version: str = "v1", size: int = 10) -> Record:
    return Record(key, version, size, 1_000, {tier: Copy(f"{tier}-{version}") for tier in tiers})


def collect(stream: AsyncIterator[T]) -> list[T]:
    async def read() -> list[T]:
        return [one async for one in stream]

    return run(read())


def add(catalog: Catalog, one: Record, stack: str = STACK) -> Record:
    made = run(catalog.swap(stack, one, 0))
    assert made is not None
    return made


class CatalogSuite:
    """Needs a fixture ``catalog``."""

    def test_what_is_stored_is_read(self, catalog: Catalog) -> None:
        copies = {"hot": Copy("a", CopyState.GOOD, 12.5), "cold": Copy("b", CopyState.OWED)}
        made = add(catalog, Record("d/k\udcff", "v", 2**40, 10**18, copies, b"\x00" * 32, Uses(1.0, 3.0, 2), "hot"))
        found = run(catalog.get(STACK, "d/k\udcff"))
        assert found == made
        assert found is not None
        assert (found.serial, found.uses) == (made.serial, Uses(1.0, 3.0, 2))
        assert run(catalog.get(STACK, "d")) is None
        assert run(catalog.get("stack|other", "d/k\udcff")) is None

    def test_one_of_two_changes_wins(self, catalog: Catalog) -> None:
        first = add(catalog, record("k", "hot"))
        assert run(catalog.swap(STACK, record("k", "cold"), 0)) is None
        second = run(catalog.swap(STACK, record("k", "cold", version="v2"), first.serial))
        assert second is not None
        assert second.serial > first.serial
        assert run(catalog.swap(STACK, record("k", "hot", version="v3"), first.serial)) is None
        assert run(catalog.get(STACK, "k")) == second

    def test_a_record_made_again_is_another(self, catalog: Catalog) -> None:
        first = add(catalog, record("k", "hot"))
        gone = run(catalog.swap(STACK, record("k", version=""), first.serial))
        assert gone is not None
        assert run(catalog.get(STACK, "k")) is None
        again = add(catalog, record("k", "hot"))
        assert again.serial != first.serial
        assert run(catalog.swap(STACK, record("k", "cold"), first.serial)) is None

    def test_what_was_removed_stays_known_while_copies_have_to_go(self, catalog: Catalog) -> None:
        first = add(catalog, record("k", "hot", "cold"))
        owed = {tier: Copy(copy.version, CopyState.OWED) for tier, copy in first.copies.items()}
        removed = run(catalog.swap(STACK, Record("k", "", 10, 0, owed), first.serial))
        assert removed is not None
        assert removed.removed
        assert [one.key for one in collect(catalog.owing_removals(STACK))] == ["k"]
        half = run(catalog.swap(STACK, removed.with_copy("hot", None), removed.serial))
        assert half is not None
        assert list(half.owed()) == ["cold"]
        run(catalog.swap(STACK, half.with_copy("cold", None), half.serial))
        assert run(catalog.get(STACK, "k")) is None
        assert collect(catalog.owing_removals(STACK)) == []

    def test_directories(self, catalog: Catalog) -> None:
        for key in ("a", "d/", "d/b", "d/a", "d/e/", "d/e/f", "d/ü", "da", "e/a"):
            add(catalog, record(key, "hot"))
        assert [one.key for one in collect(catalog.of_directory(STACK, "d/"))] == ["d/a", "d/b", "d/e/", "d/ü"]
        assert [one.key for one in collect(catalog.of_directory(STACK, ""))] == ["a", "d/", "da"]
        assert [one.key for one in collect(catalog.below(STACK, "d/"))] == ["d/", "d/a", "d/b", "d/e/", "d/e/f", "d/ü"]
        assert [one.key for one in collect(catalog.below(STACK, "d", "d/e/"))] == ["d/e/f", "d/ü", "da"]
        assert len(collect(catalog.below(STACK, ""))) == 9

    def test_long_directories_are_whole(self, catalog: Catalog) -> None:
        keys = sorted(f"d/{number}" for number in range(2500))
        run(catalog.adopt(STACK, [record(key, "hot") for key in keys]))
        assert [one.key for one in collect(catalog.of_directory(STACK, "d/"))] == keys
        assert [one.key for one in collect(catalog.below(STACK, ""))] == keys
        assert len(run(catalog.get_many(STACK, [*keys, "d/none"]))) == 2500

    def test_what_is_known_is_not_adopted(self, catalog: Catalog) -> None:
        made = add(catalog, record("k", "hot"))
        run(catalog.adopt(STACK, [record("k", "cold", version="other"), record("l", "cold")]))
        assert run(catalog.get(STACK, "k")) == made
        assert run(catalog.get_many(STACK, ["k", "l", "m"])).keys() == {"k", "l"}

    def test_holdings_follow(self, catalog: Catalog) -> None:
        run(catalog.adopt(STACK, [record(str(number), "cold", size=5) for number in range(3)]))
        first = add(catalog, record("k", "hot", "cold", size=100))
        assert run(catalog.holdings(STACK)) == {"hot": Holdings(1, 100), "cold": Holdings(4, 115)}
        moved = first.with_copy("hot", Copy("x", CopyState.OWED))
        second = run(catalog.swap(STACK, moved, first.serial))
        assert second is not None
        assert run(catalog.holdings(STACK))["hot"] == Holdings(0, 0)
        run(catalog.swap(STACK, Record("k", "", 0, 0, {}), second.serial))
        assert run(catalog.holdings(STACK))["cold"] == Holdings(3, 15)
        assert run(catalog.holdings("stack|other")) == {}

    def test_empty_objects_are_held_too(self, catalog: Catalog) -> None:
        first = add(catalog, record("k", "hot", size=0))
        assert run(catalog.holdings(STACK)) == {"hot": Holdings(1, 0)}
        assert run(catalog.swap(STACK, record("k", "cold", size=0), first.serial)) is not None
        held = run(catalog.holdings(STACK))
        assert (held["hot"], held["cold"]) == (Holdings(0, 0), Holdings(1, 0))

    def test_uses_add_up_and_survive_changes(self, catalog: Catalog) -> None:
        first = add(catalog, record("k", "hot"))
        run(catalog.note_uses(STACK, {"k": (2, 50.0), "unknown": (1, 50.0)}))
        run(catalog.note_uses(STACK, {"k": (1, 70.0)}))
        second = run(catalog.swap(STACK, record("k", "cold"), first.serial))
        assert second is not None
        found = run(catalog.get(STACK, "k"))
        assert found is not None
        assert found.uses == second.uses == Uses(50.0, 70.0, 3)
        assert run(catalog.get(STACK, "unknown")) is None

    def test_moves_are_owed_once_and_by_one(self, catalog: Catalog) -> None:
        move = Move("k", "v1", "cold", ("hot",), "age", 10)
        assert run(catalog.owe(STACK, [move, move, Move("l", "v1", "cold")])) == 2
        assert run(catalog.owe(STACK, [move])) == 0
        (claimed,) = run(catalog.claim_moves(STACK, "me", 100.0, 1))
        assert (claimed.key, claimed.leaves, claimed.reason, claimed.size) == ("k", ("hot",), "age", 10)
        (other,) = run(catalog.claim_moves(STACK, "me", 100.0, 10))
        assert other.key == "l"
        assert run(catalog.claim_moves(STACK, "me", 100.0, 10)) == []
        run(catalog.end_move(STACK, claimed))
        assert [one.key for one in collect(catalog.moves(STACK))] == ["l"]
        assert collect(catalog.moves(STACK, "k")) == []

    def test_a_failed_move_is_tried_later(self, catalog: Catalog) -> None:
        run(catalog.owe(STACK, [Move("k", "v1", "cold")]))
        (move,) = run(catalog.claim_moves(STACK, "me", 100.0, 1))
        failed = Move("k", "v1", "cold", number=move.number, failures=1, not_before=200.0, error="no")
        run(catalog.fail_move(STACK, failed))
        assert run(catalog.claim_moves(STACK, "me", 199.0, 1)) == []
        (again,) = run(catalog.claim_moves(STACK, "me", 200.0, 1))
        assert (again.failures, again.error) == (1, "no")

    def test_a_change_takes_its_moves_along(self, catalog: Catalog) -> None:
        first = run(catalog.swap(STACK, record("k", "hot"), 0, [Move("k", "v1", "cold")]))
        assert first is not None
        (move,) = run(catalog.claim_moves(STACK, "me", 0.0, 1))
        both = first.with_copy("cold", Copy("c"))
        assert run(catalog.swap(STACK, both, first.serial + 1, done=move)) is None
        assert len(collect(catalog.moves(STACK, "k"))) == 1
        assert run(catalog.swap(STACK, both, first.serial, done=move)) is not None
        assert collect(catalog.moves(STACK)) == []

    def test_a_stack_is_forgotten_alone(self, catalog: Catalog) -> None:
        add(catalog, record("k", "hot"))
        add(catalog, record("k", "hot"), "stack|other")
        run(catalog.owe(STACK, [Move("k", "v1", "cold")]))
        run(catalog.forget(STACK))
        assert collect(catalog.below(STACK, "")) == []
        assert collect(catalog.moves(STACK)) == []
        assert run(catalog.holdings(STACK)) == {}
        assert run(catalog.get("stack|other", "k")) is not None
