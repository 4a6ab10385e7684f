"""What it costs to ask for the names of a directory one by one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.errors import NotFound
from fsdriver.runtime import on_loop, run

NAMES = [f"d/{number:03d}" for number in range(300)]


def test_names_asked_for_one_by_one_become_one_listing(s3_config: dict[str, Any], tier_places: Path) -> None:
    engine = open_engine(Config.model_validate(s3_config), write="through")
    try:
        route = engine.routes[0]

        async def put_foreign() -> None:
            await on_loop()
            for name in NAMES:
                await route.backend.put(route.key(name), b"foreign")

        run(put_foreign())
        before = dict(route.backend.counters.requests)
        assert {run(route.stat(name)).size for name in NAMES} == {7}
        spent = {kind: count - before.get(kind, 0) for kind, count in route.backend.counters.requests.items()}
        # Two requests a name until the listing is there, which takes a few more; without it there would be two for each of them.
        assert spent["head"] + spent["list"] < len(NAMES) / 3
    finally:
        engine.close()


def test_a_directory_whose_time_has_ended_is_listed_once_for_all_its_names(
    s3_config: dict[str, Any], s3_bucket: str, s3_server: Any, tier_places: Path
) -> None:
    engine = open_engine(Config.model_validate(s3_config), write="through")
    try:
        route = engine.routes[0]
        run(route.mkdir("d"))
        for name in ("a", "b", "c"):
            run(route.publish(f"d/{name}", b"ours"))
        later = [0.0]
        route.memory.clock = lambda: time.monotonic() + later[0]
        later[0] += route.policy.ttl + 1
        s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/d/new", Body=b"foreign")
        s3_server.client().delete_object(Bucket=s3_bucket, Key="prefix/d/b")
        before = dict(route.backend.counters.requests)
        assert [run(route.stat(f"d/{name}")).size for name in ("a", "new", "c")] == [4, 7, 4]
        for name in ("b", "never"):
            with pytest.raises(NotFound):
                run(route.stat(f"d/{name}"))
        spent = {kind: count - before.get(kind, 0) for kind, count in route.backend.counters.requests.items()}
        assert spent["list"] == 1
        assert spent.get("head", 0) == 0
    finally:
        engine.close()
