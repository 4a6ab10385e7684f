"""``fsdriver verify``: what is wrong with cache, staging or store is found; what is being done is no alarm."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cli import main
from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.routes.route import Route
from fsdriver.runtime import run
from tests.servers import FaultyProxy
from tests.service.routes import read, write
from tests.waiting import wait_for

pytestmark = pytest.mark.service

MIB = 1 << 20
BODY = os.urandom(3 * MIB)


@pytest.fixture(params=["local", "s3"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.getfixturevalue(f"{request.param}_config")


@pytest.fixture
def engine(config: dict[str, Any], config_file: Callable[[dict[str, Any]], Path]) -> Iterator[Engine]:
    """The configured tree: files ``large``, ``part`` and ``small`` in the store; nothing in the cache."""
    config_file(config)
    engine = open_engine(Config.model_validate(config), write="back")
    for name, data in (("large", BODY), ("part", BODY), ("small", b"small")):
        write(engine.routes[0], name, data)
    run(engine.drain(60))
    yield engine
    engine.close()


def forget_cache(engine: Engine) -> None:
    run(_evict(engine.routes[0]))


async def _evict(route: Route) -> None:
    from fsdriver.routes.caching import evict

    await evict(route, "")


@pytest.fixture
def cached(engine: Engine) -> Engine:
    """All in the cache, ``part`` in part."""
    forget_cache(engine)
    assert read(engine.routes[0], "large") == BODY
    assert read(engine.routes[0], "small") == b"small"
    route = engine.routes[0]

    async def begin() -> bytes:
        with await route.open("part", await route.stat("part")) as reader:
            return bytes(await reader.read(0, 100))

    assert run(begin()) == BODY[:100]
    wait_for(lambda: engine.cache.stats().filling == 0)
    return engine


def place(engine: Engine, name: str) -> Path:
    key = engine.routes[0].content_key(name, run(engine.routes[0].stat(name)))
    return engine.cache.objects / key.place


def turn_bit(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_all_is_well(cached: Engine, capsys) -> None:
    assert main(["verify", "--json"]) == 0
    found = report(capsys)
    assert (found["problems"], found["cache"]["damaged"], found["staging"]["rows"]) == ([], 0, 0)
    assert found["cache"]["good"] >= 2
    assert main(["verify", "--json", "--bytes", "tier://data"]) == 0
    assert report(capsys)["files"]["good"] == 3
    assert main(["verify"]) == 0


def test_a_damaged_file_is_found_removed_and_fetched_anew(cached: Engine, capsys, record_property) -> None:
    path = place(cached, "large")
    turn_bit(path, MIB)
    assert main(["verify", "--json"]) == 1
    (problem,) = report(capsys)["problems"]
    assert "large" in problem
    assert not path.exists()
    assert main(["verify"]) == 0
    assert read(cached.routes[0], "large") == BODY
    record_property("reliability:integrity:damaged cache files found", 1)


def test_it_is_fetched_at_once_for_who_asks(cached: Engine, capsys) -> None:
    path = place(cached, "large")
    turn_bit(path, 5)
    assert main(["verify", "tier://data", "--repair"]) == 1
    assert "fetched anew" in capsys.readouterr().out
    assert path.read_bytes() == BODY
    assert main(["verify", "tier://data"]) == 0


def test_a_damaged_block_of_a_partial_file(cached: Engine, capsys) -> None:
    (path,) = (one for one in (cached.cache.objects / ".partial").iterdir() if one.suffix != ".map")
    states = path.with_name(f"{path.name}.map")
    wait_for(lambda: states.read_bytes()[64] == 1)  # who read it had it from memory
    turn_bit(path, 50)
    assert main(["verify", "--json"]) == 1
    assert "blocks" in report(capsys)["problems"][0]
    assert main(["verify"]) == 0
    assert read(cached.routes[0], "part") == BODY


def test_a_file_without_a_checksum_is_compared_with_the_store(engine: Engine, capsys) -> None:
    """It was written here, so the cache never fetched it."""
    path = place(engine, "large")
    turn_bit(path, 7)
    assert main(["verify", "--bytes", "tier://data/large"]) == 1
    assert "not those of the store" in capsys.readouterr().out
    assert not path.exists()
    assert read(engine.routes[0], "large") == BODY


def test_what_was_removed_from_outside(cached: Engine, capsys) -> None:
    path = place(cached, "large")
    path.unlink()
    stray = path.with_name("0" * 32)
    stray.write_bytes(b"of nobody")
    assert main(["verify", "--json"]) == 1
    found = report(capsys)["cache"]
    assert (found["absent"], found["stray"]) == (1, 1)
    assert main(["verify", "--repair"]) == 1
    assert not stray.exists()
    assert main(["verify"]) == 0


def test_the_bytes_of_a_pending_file_are_gone(s3_config, s3_server, config_file, capsys) -> None:
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
        config_file(s3_config)
        engine = open_engine(Config.model_validate(s3_config), write="back")
        proxy.fail(100_000, hold=True, method="PUT")
        write(engine.routes[0], "f", b"acknowledged")
        write(engine.routes[0], "g", b"acknowledged")
        assert main(["verify", "--json"]) == 0
        assert report(capsys)["staging"]["rows"] == 2
        os.unlink(run(engine.routes[0].stat("f")).staging or "")
        with open(run(engine.routes[0].stat("g")).staging or "", "ab") as file:
            file.write(b"!")
        assert main(["verify", "--json"]) == 1
        assert sorted(one.split()[0] for one in report(capsys)["problems"]) == ["f", "g"]
        proxy.release()
        engine.close()


def test_an_object_of_other_bytes_than_its_etag(s3_config, s3_server, s3_bucket, config_file, capsys) -> None:
    """A service that lies about its contents, which only reading all of it tells."""
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/f", Body=BODY)
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
        config_file(s3_config)
        assert main(["verify", "tier://data/f", "--bytes"]) == 0
        proxy.fail(1, method="GET", match="/f", answer="corrupt")
        assert main(["verify", "tier://data/f", "--bytes"]) == 1
        assert "checksum" in capsys.readouterr().out


def test_a_store_that_does_not_answer(engine: Engine, config, capsys, tier_places: Path) -> None:
    assert main(["verify", "tier://data/absent"]) == 2
    assert "absent" in capsys.readouterr().err


def test_a_damaged_catalog_is_told(engine: Engine, tier_places: Path, capsys) -> None:
    engine.close()
    (tier_places / "state" / "catalog.db").write_bytes(b"no database" * 1000)
    assert main(["verify", "--json"]) == 1
    assert "fsdriver fsck" in report(capsys)["problems"][0]


def test_no_alarm_while_files_are_written_evicted_and_read(cached: Engine) -> None:
    route, failures = cached.routes[0], []
    stop = threading.Event()

    def change() -> None:
        try:
            number = 0
            while not stop.is_set():
                write(route, f"w{number % 5}", os.urandom(2000 + number))
                write(route, "large", BODY)
                assert len(read(route, "part")) == len(BODY)
                if number % 3 == 0:
                    forget_cache(cached)
                number += 1
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            assert main(["verify"]) == 0
            assert main(["verify", "tier://data"]) == 0
    finally:
        stop.set()
        thread.join()
    assert failures == []
