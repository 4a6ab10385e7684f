"""Hosts that share a stack through Redis: each sees what the other did, nothing is moved twice, Redis may restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.backends import open_backend
from fsdriver.config import CatalogConfig
from fsdriver.errors import FsdriverError, Stale
from fsdriver.runtime import on_loop
from fsdriver.tiers.records import Move
from fsdriver.tiers.redis_catalog import RedisCatalog
from fsdriver.tiers.stack import Stack
from fsdriver.tiers.tier import Tier
from tests.service.backend_suite import listing, run
from tests.service.redis_server import RedisServer
from tests.service.test_backends import s3_config
from tests.service.test_stack import _Suites

pytestmark = pytest.mark.service

COUNT = 40

Hosts = Callable[[], Stack]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    place = tmp_path / "redis"
    place.mkdir()
    with RedisServer(place) as server:
        yield server


@pytest.fixture
def host(redis_server: RedisServer, s3_server: Any, tmp_path: Path) -> Iterator[Hosts]:
    """Makes stacks over the same two buckets, each with a state of its own but for Redis."""
    buckets = {name: s3_server.create_bucket() for name in ("hot", "cold")}
    made: list[Stack] = []

    def make() -> Stack:
        place = tmp_path / f"host-{len(made)}"
        place.mkdir()
        tiers = [
            Tier(name, *open_backend(name, s3_config(s3_server, bucket, url=f"s3://{bucket}/root")))
            for name, bucket in buckets.items()
        ]
        made.append(Stack(tiers, RedisCatalog(CatalogConfig(url=redis_server.url, timeout=2.0)), place))
        return made[-1]

    yield make
    for stack in made:
        run(stack.close())
        run(stack.catalog.close())


@pytest.mark.nightly
class TestS3OverS3OnRedis(_Suites):
    @pytest.fixture
    def backend(self, host: Hosts) -> Stack:
        return host()


def read(stack: Stack, key: str) -> bytes:
    return bytes(run(stack.get(key)))


def test_each_host_sees_what_the_other_did(host: Hosts) -> None:
    first, second = host(), host()
    made = run(first.put("d/a", b"one"))
    assert run(second.head("d/a")).version == made.version
    run(second.move("d/a", "cold"))
    assert run(first.head("d/a")).version == made.version
    assert read(first, "d/a") == b"one"
    assert [one.key for one in listing(first, "d/")[0] if one.key != "d/"] == ["d/a"]
    replaced = run(second.put("d/a", b"two", if_version=made.version))
    assert replaced.version != made.version
    assert read(first, "d/a") == b"two"
    with pytest.raises(Stale):
        run(first.put("d/a", b"three", if_version=made.version))
    run(first.delete("d/a", if_version=replaced.version))
    assert [one.key for one in listing(second, "d/")[0] if one.key != "d/"] == []


async def _work(stack: Stack, name: str) -> None:
    while moves := await stack.catalog.claim_moves(stack.identity, name, 0.0, 3):
        await asyncio.gather(*(stack.mover.carry_out(move) for move in moves))


def test_two_hosts_move_everything_once(host: Hosts) -> None:
    first, second = host(), host()
    bodies = {f"d/{number:02}": os.urandom(1000) for number in range(COUNT)}
    infos = {key: run(first.put(key, body)) for key, body in bodies.items()}
    moves = [Move(key, info.version, "cold", ("hot",), "test", info.size) for key, info in infos.items()]

    async def both() -> None:
        await on_loop()
        assert await first.catalog.owe(first.identity, moves) == COUNT
        assert await second.catalog.owe(second.identity, moves) == 0
        await asyncio.gather(_work(first, "first"), _work(second, "second"))

    run(both())
    assert first.mover.moves.done + second.mover.moves.done == COUNT
    assert first.mover.moves.done > 0
    assert second.mover.moves.done > 0
    assert first.mover.moves.failed == second.mover.moves.failed == 0
    for stack in (first, second):
        assert {key: read(stack, key) for key in bodies} == bodies
        assert {key: run(stack.head(key)).version for key in bodies} == {
            key: info.version for key, info in infos.items()
        }
    held = run(first.catalog.holdings(first.identity))
    assert (held["hot"].objects, held["cold"].objects) == (0, COUNT)


def test_a_redis_that_loses_everything_in_the_middle_loses_no_bytes(host: Hosts, redis_server: RedisServer) -> None:
    first, second = host(), host()
    bodies = {f"d/{number:02}": os.urandom(1000) for number in range(COUNT)}
    infos = {key: run(first.put(key, body)) for key, body in bodies.items()}
    run(
        first.catalog.owe(
            first.identity, [Move(k, i.version, "cold", ("hot",), "test", i.size) for k, i in infos.items()]
        )
    )

    async def interrupted() -> None:
        await on_loop()
        working = [asyncio.ensure_future(_work(stack, name)) for stack, name in ((first, "first"), (second, "second"))]
        while first.mover.moves.done + second.mover.moves.done < COUNT // 4:  # noqa: ASYNC110 - a counter, no event
            await asyncio.sleep(0)
        await asyncio.to_thread(redis_server.restart)
        for failure in await asyncio.gather(*working, return_exceptions=True):
            assert failure is None or (isinstance(failure, FsdriverError) and failure.temporary), failure

    run(interrupted())
    for stack in (first, second):
        assert {key: read(stack, key) for key in bodies} == bodies
        assert [one.key for one in listing(stack, "d/")[0] if one.key != "d/"] == list(bodies)
