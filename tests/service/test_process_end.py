"""A Python process that ends carries out what it owes, also where that is no more than attributes, to each store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsdriver import engine as engines
from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.entry import Changes
from fsdriver.errors import AccessDenied
from fsdriver.runtime import spawn
from fsdriver.testing.servers import S3Service
from tests.servers import FaultyProxy
from tests.service.routes import write
from tests.waiting import wait_for

pytestmark = pytest.mark.service

PROGRAM = """
import json, sys
from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.entry import Changes
from fsdriver.runtime import run
engine = open_engine(Config.model_validate(json.loads(sys.argv[1])), write="back")
route, _ = engine.route("/data")
run(route.publish("f", b"content"))
if sys.argv[2] == "attributes":
    run(route.sync())
    run(route.set_attributes("f", Changes(mode=0o4711)))
"""


@pytest.mark.parametrize("what", ["contents", "attributes"])
@pytest.mark.parametrize("config", ["local_config", "s3_config"])
def test_what_is_owed_at_the_end_is_sent(config: str, what: str, request: pytest.FixtureRequest) -> None:
    """Nothing is left to the next process."""
    tree: dict[str, Any] = request.getfixturevalue(config)
    subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(tree), what], check=True, timeout=60)
    assert not open_engine(Config.model_validate(tree)).owes()


@dataclass
class Two:
    """Trees over a store that takes nothing before it is told to, and over one that does."""

    proxy: FaultyProxy
    stores: dict[str, dict[str, Any]]
    routes: dict[str, dict[str, Any]]

    def engine(self, *names: str) -> Engine:
        """An engine with some of the two routes, each owing a file; what the free one owes is no more than attributes."""
        tree = {"backend": {n: self.stores[n] for n in names}, "route": [self.routes[n] for n in names]}
        engine = open_engine(Config.model_validate(tree))
        for route in engine.routes:
            write(route, "f", b"content", Changes(mode=0o640))
        return engine


@pytest.fixture
def two(tier_places: Path, s3_server: S3Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    """Attribute objects are sent only because all is to be sent: nothing else asks for them here."""
    monkeypatch.setattr("fsdriver.writeback.flushing.MARKED_QUIET", 3600.0)
    monkeypatch.setattr("fsdriver.writeback.flushing.MARKED_BUSY", 3600.0)
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    with FaultyProxy(s3_server.endpoint) as proxy:
        stores = {
            name: {"url": f"s3://{s3_server.create_bucket()}", "endpoint": endpoint, **keys}
            for name, endpoint in (("held", proxy.endpoint), ("free", s3_server.endpoint))
        }
        routes = {
            name: {"path": f"/{name}", "tiers": [name], "write": write}
            for name, write in (("held", "back"), ("free", "through"))
        }
        proxy.fail(100, hold=True, method="PUT")
        yield Two(proxy, stores, routes)
        proxy.release()


def test_a_store_that_takes_nothing_holds_up_no_other(two: Two) -> None:
    engine = two.engine("held", "free")
    _, free = engine.routes
    assert free.marked
    draining = spawn(engine.drain(60))
    wait_for(lambda: not free.marked)
    assert not draining.done()
    two.proxy.release()
    draining.result(60)


def test_engines_of_one_process_end_together(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "DRAIN_AT_EXIT", 60.0)
    held, (free,) = two.engine("held"), two.engine("free").routes
    assert free.marked
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(engines._at_exit)
        try:
            wait_for(lambda: not free.marked, seconds=30)
            assert not ending.done()
        finally:
            two.proxy.release()
        ending.result(60)
    assert not held.owes()


def test_a_key_that_the_store_refuses_holds_up_no_other(two: Two) -> None:
    """Who waits for all there is learns of it when all else has been sent."""
    two.proxy.heal()
    two.proxy.fail(100, hold=True, method="PUT", match="/f")
    two.proxy.fail(100, status=403, method="PUT", match="/refused")
    engine = two.engine("held")
    (route,), (uploader,) = engine.routes, engine.uploaders.values()
    write(route, "refused", b"content")
    wait_for(lambda: engine.journal.failing(route.backend.identity, 1))
    draining = spawn(engine.drain(60))
    wait_for(lambda: two.proxy.held and (uploader.waiters.drain or draining.done()))
    two.proxy.release()
    with pytest.raises(AccessDenied):
        draining.result(60)
    assert [row.path for row in engine.journal.below(route.backend.identity, "")] == ["refused"]
