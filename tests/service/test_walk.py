"""What walking a tree costs: flat listings in place of one per directory, and what they must not change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.entry import Changes, Entry, Kind
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop, run
from tests.service.routes import write


class World:
    """One S3 route, and what other tools do to its bucket."""

    def __init__(self, config: dict[str, Any], bucket: str, client: Any) -> None:
        self._config = config
        self._bucket = bucket
        self._client = client
        self.engine: Engine = open_engine(Config.model_validate(config), write="through")

    @property
    def route(self) -> Route:
        return self.engine.routes[0]

    def put(self, *keys: str) -> None:
        for key in keys:
            self._client.put_object(Bucket=self._bucket, Key=f"prefix/{key}", Body=b"foreign")

    def again(self) -> None:
        """A process that remembers nothing."""
        self.engine.close()
        self.engine = open_engine(Config.model_validate(self._config), write="through")

    def walk(self, path: str = "") -> dict[str, Entry]:
        """Every name below a directory, as find(1) goes."""
        found: dict[str, Entry] = {}
        for name, entry in run(self.route.list(path)).items():
            below = f"{path}/{name}" if path else name
            found[below] = run(self.route.stat(below))
            if entry.kind is Kind.DIRECTORY:
                found |= self.walk(below)
        return found

    def spent(self, before: dict[str, int]) -> dict[str, int]:
        now = self.route.backend.counters.requests
        return {kind: count - before.get(kind, 0) for kind, count in now.items() if count != before.get(kind, 0)}


@pytest.fixture
def world(s3_config: dict[str, Any], s3_bucket: str, s3_server: Any, tier_places: Path) -> Iterator[World]:
    made = World(s3_config, s3_bucket, s3_server.client())
    yield made
    made.engine.close()


def test_a_walk_over_a_foreign_bucket_costs_less_than_a_request_for_each_directory(world: World) -> None:
    keys = [f"d{number:02d}/{name}" for number in range(30) for name in ("a", "b", "deep/c")]
    world.put(*keys)
    before = dict(world.route.backend.counters.requests)
    found = world.walk()
    assert {path for path, entry in found.items() if entry.kind is Kind.FILE} == set(keys)
    spent = world.spent(before)
    # The root, its attribute object, which directories have one; then one flat page with all that lies below.
    assert spent == {"list": 3, "get": 1}


def test_names_in_flat_pages_are_those_of_listings_one_by_one(world: World) -> None:
    keys = [
        "d/a", "d/sub/x", "d/sub%file", "d-1/a", "d.x/a", "d0/a", "e/both", "e/both/in", "e/plain", "f/seen", "g/z",
        "h/", "i/j/", "k/l/m/n/o", "n%0Am/x", "sp ace/a+b", "é/ü", "top",
    ]  # fmt: skip
    world.put(*keys)
    walked = world.walk()
    one_by_one: dict[str, Entry] = {}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        world.again()
        for name, entry in run(world.route.list(directory)).items():
            below = f"{directory}/{name}" if directory else name
            one_by_one[below] = entry
            if entry.kind is Kind.DIRECTORY:
                waiting.append(below)
    assert {path: (entry.kind, entry.size) for path, entry in walked.items()} == {
        path: (entry.kind, entry.size) for path, entry in one_by_one.items()
    }


def test_attributes_are_found_on_a_walk(world: World) -> None:
    route = world.route
    for number in range(8):
        run(route.mkdir(f"d{number}", Changes(mode=0o710)))
        write(route, f"d{number}/f", b"", Changes(mode=0o640))
    run(route.sync())
    world.put("d3/foreign")
    world.again()
    found = world.walk()
    assert {found[f"d{number}"].mode for number in range(8)} == {0o710}
    assert {found[f"d{number}/f"].mode for number in range(8)} == {0o640}
    assert found["d3/foreign"].mode == world.route.defaults.mode


def test_large_directories_are_listed_one_by_one(world: World) -> None:
    keys = [f"d{number}/{name:04d}" for number in range(2) for name in range(600)]
    world.put(*keys)
    assert {path for path, entry in world.walk().items() if entry.kind is Kind.FILE} == set(keys)


def test_what_changes_while_flat_pages_are_under_way_is_seen(world: World) -> None:
    world.put(*(f"d{number}/old" for number in range(6)))
    route = world.route
    run(route.list(""))

    async def race() -> None:
        await on_loop()
        listing = route.list("d0")
        asked = route.memory.ask()
        await route.mkdir("d3/new", Changes(mode=0o700))
        await route.remove("d4/old")
        await listing
        assert route.memory.ask().at >= asked.at

    run(race())
    found = world.walk()
    assert found["d3/new"].kind is Kind.DIRECTORY
    assert "d4/old" not in found
    assert "d5/old" in found
