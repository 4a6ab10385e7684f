"""What a newer fsdriver has written is refused or left alone, never rewritten. The catalog: `test_fsck`."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from fsdriver.cli import main
from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.entry import Changes
from fsdriver.errors import ConfigError, Corrupt
from fsdriver.runtime import run
from tests.service.routes import Tree, read, write
from tests.waiting import wait_for

pytestmark = pytest.mark.service


def test_an_attribute_object(tree: Tree) -> None:
    write(tree.route, "d/f", b"content", Changes(mode=0o640))
    tree.settle()
    key = tree.route.meta_key("d")
    newer = json.dumps(
        {"format": "fsdriver-attributes", "version": 99, "self": {}, "entries": {"f": {"new": 1}}}
    ).encode()
    run(_put(tree, key, newer))
    route = tree.fresh()
    for operation in (
        lambda: run(route.list("d")),
        lambda: run(route.set_attributes("d/f", Changes(mode=0o600))),
        lambda: write(route, "d/g", b"new"),
        lambda: run(route.remove("d/f")),
        lambda: run(route.rename("d", "e")),
    ):
        with pytest.raises(Corrupt, match="upgrade fsdriver"):
            operation()
    assert bytes(run(_get(tree, key))) == newer
    assert tree.engine.pending() == (0, 0)


async def _put(tree: Tree, key: str, data: bytes) -> None:
    from fsdriver.runtime import on_loop

    await on_loop()
    await tree.route.backend.put(key, data)


async def _get(tree: Tree, key: str) -> memoryview:
    from fsdriver.runtime import on_loop

    await on_loop()
    return await tree.route.backend.get(key)


def test_the_index_of_the_cache(local_config: dict[str, Any], tier_places) -> None:
    config = Config.model_validate(local_config)
    open_engine(config).close()
    index = tier_places / "cache" / "index.db"
    with closing(sqlite3.connect(index)) as db:
        db.execute("PRAGMA user_version=99")
    before = index.read_bytes()
    with pytest.raises(ConfigError, match="newer program"):
        open_engine(config)
    assert main(["verify"]) == 2
    assert index.read_bytes() == before


def test_a_partial_file(local_config: dict[str, Any], tier_places) -> None:
    body = os.urandom(3 << 20)
    (tier_places / "bucket" / "f").write_bytes(body)
    engine = open_engine(Config.model_validate(local_config))
    route, folder = engine.routes[0], engine.cache.objects / ".partial"

    async def begin() -> None:
        with await route.open("f", await route.stat("f")) as reader:
            await reader.read(0, 100)

    run(begin())
    wait_for(lambda: any(one.read_bytes()[64:65] == b"\1" for one in folder.glob("*.map")))
    engine.close()
    (map_,) = folder.glob("*.map")
    map_.write_bytes(b"fsdpart2" + map_.read_bytes()[8:])
    before = map_.read_bytes()
    engine = open_engine(Config.model_validate(local_config))
    assert read(engine.routes[0], "f") == body
    assert main(["verify"]) == 2
    assert map_.read_bytes() == before
    engine.close()
