"""What it costs to ask for the names of a directory one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsdriver.config import Config
from fsdriver.engine import open_engine
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
        # Two requests a name until the listing is there; without it there would be two for each of them.
        assert spent["head"] + spent["list"] < len(NAMES)
    finally:
        engine.close()
