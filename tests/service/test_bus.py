"""What hosts tell each other through a real Redis: changes, and which of them sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fsdriver.config import CatalogConfig
from fsdriver.runtime import on_loop, run
from fsdriver.tiers.bus import KEYS, Bus, Leadership
from fsdriver.tiers.redis_connection import RedisConnection
from tests.service.redis_server import RedisServer
from tests.waiting import wait_for

pytestmark = pytest.mark.service

STACK = "stack|one"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


class Host:
    """A bus and what it hears."""

    def __init__(self, server: RedisServer, stack: str = STACK) -> None:
        self.connection = RedisConnection(CatalogConfig(url=server.url, timeout=1.0))
        self.bus = Bus(self.connection, pulse=0.3)
        self.stack = stack
        self.heard: list[Sequence[str] | None] = []

    def listen(self) -> None:
        run(self.bus.subscribe(self.stack, self.heard.append))
        run(self.bus.ready(60))
        assert self.heard == [None]
        self.heard.clear()

    def close(self) -> None:
        run(self.bus.close())
        run(self.connection.close())


@pytest.fixture
def host(server: RedisServer) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(stack: str = STACK) -> Host:
        made.append(Host(server, stack))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_others_hear_of_changes_and_oneself_does_not(host: Callable[..., Host]) -> None:
    first, second, apart = host(), host(), host("stack|other")
    for one in (first, second, apart):
        one.listen()
    assert run(first.bus.announce(STACK, ["a", "\udcff"]))
    wait_for(lambda: second.heard == [["a", "\udcff"]])
    assert run(second.bus.announce(STACK, ["b"]))
    wait_for(lambda: first.heard == [["b"]])
    assert run(first.bus.announce(STACK, [str(number) for number in range(KEYS + 1)]))
    wait_for(lambda: second.heard == [["a", "\udcff"], None])
    assert apart.heard == []


def test_after_a_restart_everything_may_have_changed(host: Callable[..., Host], server: RedisServer) -> None:
    first, second = host(), host()
    first.listen()
    second.listen()
    server.stop()
    wait_for(lambda: not second.bus.connected)
    assert second.heard == [None]
    assert not run(first.bus.announce(STACK, ["a"]))
    second.heard.clear()
    server.start()
    wait_for(lambda: first.bus.connected and second.bus.connected and not first.bus._unsaid)
    wait_for(lambda: None in second.heard)
    second.heard.clear()
    assert run(first.bus.announce(STACK, ["b"]))
    wait_for(lambda: ["b"] in second.heard)
    assert first.bus.failures > 0


def test_what_could_not_be_said_is_made_up_for(host: Callable[..., Host], server: RedisServer) -> None:
    first, second = host(), host()
    second.listen()
    first.bus._unsaid.add(STACK)  # its own connection was away while that of the others was not
    first.listen()
    wait_for(lambda: second.heard == [None])


def test_a_connection_that_says_nothing_is_given_up(host: Callable[..., Host], server: RedisServer) -> None:
    one = host()
    one.listen()
    server.suspend()
    wait_for(lambda: not one.bus.connected)
    server.resume()
    wait_for(lambda: one.bus.connected)
    assert None in one.heard


def test_a_listener_that_fails_does_not_end_the_listening(
    host: Callable[..., Host], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = host(), host()
    heard: list[object] = []

    def fails(keys: Sequence[str] | None) -> None:
        heard.append(keys)
        raise RuntimeError("no")

    run(second.bus.subscribe(STACK, fails))
    run(second.bus.ready(60))
    run(first.bus.announce(STACK, ["a"]))
    wait_for(lambda: heard == [None, ["a"]])
    assert "could not be passed on" in caplog.text


def test_one_host_leads(host: Callable[..., Host]) -> None:
    first, second = (Leadership(host().connection, STACK, lease=60) for _ in range(2))
    apart = Leadership(host().connection, "stack|other", lease=60)
    assert run(first.take())
    assert run(first.take())
    assert not run(second.take())
    assert run(apart.take())
    assert (first.held, second.held) == (True, False)
    token = first.token
    run(first.release())
    assert not first.held
    assert run(second.take())
    assert second.token > token
    run(second.release())
    run(apart.release())


def test_a_lease_is_renewed_and_ends_with_its_holder(host: Callable[..., Host]) -> None:
    first, second = (Leadership(host().connection, STACK, lease=0.5) for _ in range(2))
    assert run(first.take())

    async def watch() -> None:
        await on_loop()
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert not await second.take() or not first.held
        assert first._task is not None
        first._task.cancel()  # as if its host had died
        while not await second.take():  # noqa: ASYNC110 - the server's clock decides
            await asyncio.sleep(0.02)
        assert not first.held

    run(watch())
    assert second.token > first.token
    run(second.release())


def test_a_leader_without_redis_leads_no_longer_than_its_lease(host: Callable[..., Host], server: RedisServer) -> None:
    first, second = (Leadership(host().connection, STACK, lease=0.5) for _ in range(2))
    assert run(first.take())
    server.stop()
    wait_for(lambda: not first.held)
    assert not run(first.take())
    token = first.token
    run(first.release())
    server.start()
    assert run(second.take())
    assert second.token > token, "also where Redis has lost the last one"
    run(second.release())
