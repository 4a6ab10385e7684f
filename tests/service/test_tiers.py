"""Bytes move between tiers, and nobody notices: not who reads, not who writes, not who comes after a crash."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.backends import open_backend
from fsdriver.config.models import BackendConfig
from fsdriver.errors import BackendError, NotFound, Stale, Unsupported
from fsdriver.tiers.records import CopyState, Move, Record
from fsdriver.tiers.sqlite_catalog import SqliteCatalog
from fsdriver.tiers.stack import Stack
from fsdriver.tiers.tier import Tier
from tests.servers import FaultyProxy
from tests.service.backend_suite import listing, run
from tests.service.test_backends import s3_config

pytestmark = pytest.mark.service

BODY = os.urandom(300_000)


class Pair:
    """A stack of two buckets behind proxies that can fail, and each bucket as others see it."""

    def __init__(self, server: Any, place: Path) -> None:
        self.server = server
        self.place = place
        self.client = server.client()
        self.names = {"hot": server.create_bucket(), "cold": server.create_bucket()}
        self.proxies = {name: FaultyProxy(server.endpoint).__enter__() for name in self.names}
        self.catalog = SqliteCatalog(place / "tiers.db")
        self.stack = self.open()

    def open(self, **options: Any) -> Stack:
        tiers = []
        for name, bucket in self.names.items():
            config = s3_config(
                self.server,
                bucket,
                url=f"s3://{bucket}/root",
                endpoint=self.proxies[name].endpoint,
                retries=1,
                timeout=5,
            )
            tiers.append(Tier(name, *open_backend(name, config)))
        return Stack(tiers, self.catalog, self.place, **options)

    def again(self, **options: Any) -> Stack:
        """The next process."""
        run(self.stack.close())
        self.stack = self.open(**options)
        return self.stack

    def lose_catalog(self, **options: Any) -> Stack:
        run(self.stack.close())
        run(self.catalog.close())
        for path in self.place.glob("tiers.db*"):
            path.unlink()
        self.catalog = SqliteCatalog(self.place / "tiers.db")
        self.stack = self.open(**options)
        return self.stack

    def close(self) -> None:
        run(self.stack.close())
        run(self.catalog.close())
        for proxy in self.proxies.values():
            proxy.__exit__()

    def keys(self, tier: str) -> list[str]:
        answer = self.client.list_objects_v2(Bucket=self.names[tier], Prefix="root/")
        keys = [one["Key"].removeprefix("root/") for one in answer.get("Contents", ())]
        return [
            key for key in keys if not key.endswith("/")
        ]  # SeaweedFS keeps directories when the last object has gone

    def put(self, tier: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.names[tier], Key=f"root/{key}", Body=data)

    def remove(self, tier: str, key: str) -> None:
        self.client.delete_object(Bucket=self.names[tier], Key=f"root/{key}")

    def record(self, key: str) -> Record:
        found = run(self.catalog.get(self.stack.identity, key))
        assert found is not None
        return found

    def read(self, key: str) -> bytes:
        return bytes(run(self.stack.get(key)))


def names(stack: Stack, prefix: str) -> list[str]:
    return [one.key for one in listing(stack, prefix)[0] if not one.key.endswith("/")]


@pytest.fixture
def pair(s3_server: Any, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(s3_server, tmp_path)
    yield made
    made.close()


def test_a_moved_object_keeps_its_version_time_and_metadata(pair: Pair) -> None:
    before = run(pair.stack.put("d/a", BODY, metadata={"fsdriver-mode": "0640"}))
    moved = run(pair.stack.move("d/a", "cold"))
    assert (pair.keys("hot"), pair.keys("cold")) == ([], ["d/a"])
    assert moved.holders() == ["cold"]
    assert moved.sha256 == hashlib.sha256(BODY).digest()
    after = run(pair.stack.head("d/a"))
    assert (after.version, after.size, after.mtime_ns) == (before.version, before.size, before.mtime_ns)
    assert after.metadata == {"fsdriver-mode": "0640"}
    assert pair.read("d/a") == BODY
    assert bytes(run(pair.stack.get("d/a", 100, 200, before.version))) == BODY[100:200]
    (listed,) = [one for one in listing(pair.stack, "d/")[0] if one.key == "d/a"]
    assert (listed.version, listed.mtime_ns) == (before.version, before.mtime_ns)
    run(pair.stack.move("d/a", "hot", keep=True))
    assert (pair.keys("hot"), pair.keys("cold")) == (["d/a"], ["d/a"])
    assert run(pair.stack.head("d/a")).version == before.version


def test_large_objects_move_by_file_and_are_verified(pair: Pair) -> None:
    body = os.urandom(9 << 20)
    run(pair.stack.put("large", body))
    pair.stack.tiers["cold"].backend.put_limit = pair.stack.tiers["cold"].backend.part_size = 5 << 20
    run(pair.stack.move("large", "cold"))
    assert pair.keys("hot") == []
    assert pair.read("large") == body
    assert not list(pair.place.glob("move-*"))


def test_a_moved_object_is_replaced_and_removed_everywhere(pair: Pair) -> None:
    one = run(pair.stack.put("a", b"one"))
    run(pair.stack.move("a", "cold"))
    with pytest.raises(Stale):
        run(pair.stack.put("a", b"other", if_version="0" * 32))
    with pytest.raises(Stale):
        run(pair.stack.put("a", b"other", if_version=""))
    run(pair.stack.put("a", b"two", if_version=one.version))
    assert (pair.keys("hot"), pair.keys("cold")) == (["a"], [])
    assert pair.read("a") == b"two"
    run(pair.stack.move("a", "cold", keep=True))
    run(pair.stack.delete("a"))
    assert (pair.keys("hot"), pair.keys("cold")) == ([], [])
    with pytest.raises(NotFound):
        run(pair.stack.head("a"))
    run(pair.stack.put("a", b"three", if_version=""))


def test_a_renamed_object_stays_in_its_tier(pair: Pair) -> None:
    before = run(pair.stack.put("a", BODY))
    run(pair.stack.move("a", "cold"))
    run(pair.stack.copy("a", "b", source_version=before.version, if_version=""))
    run(pair.stack.delete("a", if_version=before.version))
    assert (pair.keys("hot"), pair.keys("cold")) == ([], ["b"])
    assert pair.read("b") == BODY


def test_others_objects_are_adopted_and_what_vanishes_is_noticed(pair: Pair) -> None:
    pair.put("cold", "d/theirs", b"theirs")
    pair.put("hot", "d/also", b"also")
    assert names(pair.stack, "d/") == ["d/also", "d/theirs"]
    assert pair.read("d/theirs") == b"theirs"
    run(pair.stack.move("d/theirs", "hot"))
    assert pair.keys("cold") == []
    pair.put("cold", "unlisted", b"found by name")
    assert pair.read("unlisted") == b"found by name"
    pair.remove("hot", "d/theirs")
    assert names(pair.stack, "d/") == ["d/also"]
    with pytest.raises(NotFound):
        run(pair.stack.head("d/theirs"))
    assert pair.stack.finder.findings.vanished == 1


def test_what_somebody_writes_over_a_moved_object_wins(pair: Pair) -> None:
    old = run(pair.stack.put("d/a", b"old"))
    run(pair.stack.move("d/a", "cold"))
    pair.put("hot", "d/a", b"newer")
    found = run(pair.stack.head("d/a"))
    assert (found.size, found.version != old.version) == (5, True)
    assert pair.read("d/a") == b"newer"
    with pytest.raises(Stale):
        run(pair.stack.get("d/a", 0, 3, old.version))
    with pytest.raises(Stale):
        run(pair.stack.put("d/a", b"mine", if_version=old.version))
    # The older copy is hidden, and goes with the object.
    assert pair.keys("cold") == ["d/a"]
    run(pair.stack.delete("d/a"))
    assert (pair.keys("hot"), pair.keys("cold")) == ([], [])


def test_a_reader_goes_on_while_its_object_moves(pair: Pair) -> None:
    info = run(pair.stack.put("a", BODY))

    async def read_while_moving() -> None:
        for target in ("cold", "hot", "cold"):
            moving = asyncio.create_task(pair.stack.move("a", target))
            start = 0
            while not moving.done():
                assert bytes(await pair.stack.get("a", start, start + 1000, info.version)) == BODY[start : start + 1000]
                start = (start + 1000) % len(BODY)
            await moving

    run(read_while_moving())


def test_a_writer_wins_against_a_move(pair: Pair) -> None:
    info = run(pair.stack.put("a", b"one"))
    original = pair.stack.mover._copy

    async def overtaken(*arguments: Any) -> Any:
        made = await original(*arguments)
        await pair.stack.put("a", b"two", if_version=info.version)
        return made

    pair.stack.mover._copy = overtaken  # type: ignore[method-assign]
    with pytest.raises(Stale):
        run(pair.stack.move("a", "cold"))
    assert pair.read("a") == b"two"
    assert (pair.keys("hot"), pair.keys("cold")) == (["a"], [])
    assert run(_moves(pair)) == []


async def _moves(pair: Pair) -> list[Move]:
    return [move async for move in pair.catalog.moves(pair.stack.identity)]


@pytest.mark.parametrize("step", ["put", "swap", "remove"])
@pytest.mark.parametrize("before", [True, False])
def test_a_move_that_ends_anywhere_is_finished_by_the_next_process(pair: Pair, step: str, before: bool) -> None:
    """The process dies before or after each step that others can see."""
    info = run(pair.stack.put("a", BODY))
    move = Move("a", info.version, "cold", ("hot",), "test", len(BODY))
    run(pair.catalog.owe(pair.stack.identity, [move]))
    stack = pair.stack
    target: Any = {"put": stack.tiers["cold"].backend, "swap": pair.catalog, "remove": stack.remover}[step]
    original: Callable[..., Awaitable[Any]] = getattr(target, step)

    class Died(BaseException):
        pass

    async def dies(*arguments: Any, **options: Any) -> Any:
        if not before:
            await original(*arguments, **options)
        raise Died

    setattr(target, step, dies)
    with pytest.raises(Died):
        run(_claim_and_carry_out(pair))
    setattr(target, step, original)
    good = [tier for tier in pair.names if pair.keys(tier) == ["a"]]
    assert good
    pair.again()
    assert pair.read("a") == BODY
    run(_claim_and_carry_out(pair))
    run(pair.stack.remover.remove_all())
    assert (pair.keys("hot"), pair.keys("cold")) == ([], ["a"])
    assert run(_moves(pair)) == []
    assert run(pair.stack.head("a")).version == info.version
    assert pair.read("a") == BODY


async def _claim_and_carry_out(pair: Pair) -> None:
    owner = os.urandom(4).hex()
    for move in await pair.catalog.claim_moves(pair.stack.identity, owner, 1e12, 10):
        assert await pair.stack.mover.carry_out(move)


def test_a_lost_catalog_is_made_anew_from_the_tiers(pair: Pair) -> None:
    kept = {name: run(pair.stack.put(name, name.encode() * 100)) for name in ("d/hot", "d/cold", "d/both")}
    run(pair.stack.move("d/cold", "cold"))
    run(pair.stack.move("d/both", "cold", keep=True))
    pair.lose_catalog()
    found = {one.key: one for one in listing(pair.stack, "d/")[0] if one.key != "d/"}
    assert found.keys() == kept.keys()
    for name, info in kept.items():
        assert pair.read(name) == name.encode() * 100
        assert run(pair.stack.head(name)).version in {info.version, found[name].version}
    assert sorted(pair.record("d/both").holders()) == ["cold", "hot"]
    assert run(pair.stack.head("d/both")).version == kept["d/both"].version


def test_an_outage_of_the_hot_tier_is_not_seen_by_readers(pair: Pair) -> None:
    for name in ("d/a", "d/sub/b"):
        run(pair.stack.put(name, name.encode()))
        run(pair.stack.move(name, "cold", keep=True))
    run(pair.stack.put("d/only-hot", b"x"))
    pair.proxies["hot"].refuse()
    assert pair.read("d/a") == b"d/a"
    assert run(pair.stack.head("d/a")).size == 3
    objects, prefixes = listing(pair.stack, "d/")
    assert ([one.key for one in objects if one.key != "d/"], prefixes) == (["d/a", "d/only-hot"], ["d/sub/"])
    with pytest.raises(BackendError, match="hot"):
        run(pair.stack.get("d/only-hot"))
    assert pair.stack.reader.reads.fallbacks > 0
    pair.proxies["hot"].accept()


def test_what_is_removed_while_a_tier_is_away_stays_removed(pair: Pair) -> None:
    run(pair.stack.put("d/a", b"x"))
    run(pair.stack.move("d/a", "cold", keep=True))
    pair.proxies["cold"].refuse()
    run(pair.stack.delete("d/a"))
    assert pair.keys("hot") == []
    assert names(pair.stack, "d/") == []
    pair.proxies["cold"].accept()
    assert names(pair.stack, "d/") == []
    with pytest.raises(NotFound):
        run(pair.stack.head("d/a"))
    pair.again()
    assert run(pair.stack.remover.remove_all()) == 0
    assert pair.keys("cold") == []


def test_a_corrupt_copy_is_not_read_and_is_repaired(pair: Pair) -> None:
    run(pair.stack.put("a", BODY))
    run(pair.stack.move("a", "cold", keep=True))
    wrong = bytearray(BODY)
    wrong[1000] ^= 1
    pair.put("hot", "a", bytes(wrong))
    # As if the tier itself had changed a bit: it tells the same version as before.
    hot = pair.stack.tiers["hot"].backend
    told = run(hot.head("root/a")).version
    known = pair.record("a")
    spoilt = known.with_copy("hot", type(known.copies["hot"])(told))
    assert run(pair.catalog.swap(pair.stack.identity, spoilt, known.serial)) is not None
    assert pair.read("a") == BODY
    assert pair.record("a").copies["hot"].state is CopyState.CORRUPT
    assert pair.stack.reader.reads.corrupt == 1
    run(_claim_and_carry_out(pair))
    assert bytes(run(hot.get("root/a"))) == BODY
    assert sorted(pair.record("a").holders()) == ["cold", "hot"]


def test_replicas_fail_on_their_own_and_are_repaired(pair: Pair) -> None:
    owing: list[bool] = []
    pair.again(replicas=["cold"], ack=1, owing=lambda: owing.append(True))
    run(pair.stack.put("a", BODY))
    assert owing
    run(_claim_and_carry_out(pair))
    assert (pair.keys("hot"), pair.keys("cold")) == (["a"], ["a"])
    pair.proxies["cold"].refuse()
    run(pair.stack.put("b", b"b"))
    pair.proxies["cold"].accept()
    pair.again(replicas=["cold"])
    run(_claim_and_carry_out(pair))
    assert pair.keys("cold") == ["a", "b"]


def test_a_quorum_is_waited_for(pair: Pair) -> None:
    pair.again(replicas=["cold"])
    run(pair.stack.put("a", BODY))
    assert pair.keys("cold") == ["a"]
    pair.proxies["cold"].refuse()
    with pytest.raises(BackendError, match="1 of 2"):
        run(pair.stack.put("b", b"b", metadata={"fsdriver-ino": "7"}, if_version=""))
    pair.proxies["cold"].accept()
    # Whoever tries again, as the uploader does, is not told that somebody else was faster.
    run(pair.stack.put("b", b"b", metadata={"fsdriver-ino": "7"}, if_version="", doubtful=True))
    assert pair.keys("cold") == ["a", "b"]


def test_what_describes_the_tree_is_in_every_tier(pair: Pair) -> None:
    run(pair.stack.put(".fsdriver/meta/d", b"{}"))
    run(_claim_and_carry_out(pair))
    assert pair.keys("cold") == [".fsdriver/meta/d"]


def test_bad_orders_are_refused(pair: Pair, tmp_path: Path) -> None:
    run(pair.stack.put("a", b"x"))
    with pytest.raises(Unsupported, match="hot, cold"):
        run(pair.stack.move("a", "warm"))
    with pytest.raises(NotFound):
        run(pair.stack.move("nothing", "cold"))
    (tmp_path / "x").mkdir()
    place = open_backend("one", BackendConfig(url=f"file://{tmp_path}/x"))
    with pytest.raises(OSError, match="one place"):
        Stack([Tier("one", *place), Tier("two", *place)], pair.catalog, tmp_path)


def test_a_pinned_object_is_left_where_it_is(pair: Pair) -> None:
    run(pair.stack.put("a", b"x"))
    assert run(pair.stack.move("a", "cold", pin=True)).pin == "cold"
    assert run(pair.stack.move("a", "cold")).pin is None
