"""A route on a real store as the mount uses it, and as a host sees it that knows nothing of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.entry import Changes, Entry
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop, run

PLAIN = Changes()
Mode = Literal["back", "through"]


@dataclass
class Tree:
    """A route of one engine, and how to start over with nothing local."""

    config: dict[str, Any]
    places: Path
    write: Mode
    engine: Engine

    @property
    def route(self) -> Route:
        return self.engine.routes[0]

    def settle(self) -> None:
        run(self.engine.drain(30))

    def fresh(self, **route: Any) -> Route:
        """The same store seen by a host that knows nothing."""
        self.engine.close()
        for place in ("cache", "state"):
            shutil.rmtree(self.places / place)
        table = self.config | {"route": [self.config["route"][0] | route]}
        self.engine = open_engine(Config.model_validate(table), write=self.write)
        return self.route

    def objects(self) -> dict[str, int]:
        """Keys below the route and their sizes, as another tool lists them."""
        return run(_objects(self.route))


async def _objects(route: Route) -> dict[str, int]:
    await on_loop()
    found = {}
    async for page in route.backend.list(route.root_key, delimiter=False):
        found |= {
            info.key.removeprefix(route.root_key): info.size for info in page.objects if info.key != route.root_key
        }
    return found


def write(route: Route, path: str, data: bytes, changes: Changes = PLAIN) -> None:
    """Create or replace a file the way the mount does."""
    staged = route.new_file()
    run(route.create(path, staged, changes))
    staged.fill(data)
    run(route.commit(path, staged))
    run(route.release(path, staged))


def update(route: Route, path: str, offset: int, data: bytes) -> None:
    """Write inside an existing file the way the mount does."""
    staged = run(route.stage(path, run(route.stat(path)), None))
    os.pwrite(staged.fileno(), data, offset)
    run(route.commit(path, staged))
    run(route.release(path, staged))


def read(route: Route, path: str) -> bytes:
    return bytes(run(route.read(path)))


def names(route: Route, path: str = "") -> list[str]:
    return sorted(run(route.list(path)))


def kept(entry: Entry) -> Entry:
    """What must survive: everything but where the bytes are."""
    return replace(entry, version=None, staging=None, key=None)
