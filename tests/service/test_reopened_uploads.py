"""A file that is opened for writing again while its upload is under way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.routes import inplace
from fsdriver.runtime import run
from tests.servers import FaultyProxy
from tests.service.routes import write
from tests.waiting import wait_for

pytestmark = pytest.mark.service


class Held:
    """A route whose store holds back the answers to uploads."""

    def __init__(self, engine: Engine, proxy: FaultyProxy, staging: Path, client, bucket: str) -> None:
        self.engine = engine
        self.route = engine.routes[0]
        self.proxy = proxy
        self.staging = staging
        self._client = client
        self._bucket = bucket

    def stored(self) -> bytes:
        return self._client.get_object(Bucket=self._bucket, Key="prefix/file")["Body"].read()

    def hold(self) -> None:
        self.proxy.fail(1000, hold=True, method="PUT", match="/file")

    def conflicts(self) -> int:
        return self.engine.uploaders[self.route.backend.identity].counters.conflicts

    def write(self, data: bytes) -> None:
        write(self.route, "file", data)

    def settle(self) -> None:
        self.proxy.release()
        run(self.engine.drain(60))


@pytest.fixture(params=[inplace.COPIED_AT_ONCE, 0], ids=["copied at once", "copied by a worker"])
def held(s3_config, s3_server, s3_bucket, tier_places, monkeypatch, request) -> Iterator[Held]:
    monkeypatch.setattr(inplace, "COPIED_AT_ONCE", request.param)
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
        engine = open_engine(Config.model_validate(s3_config), write="back")
        yield Held(engine, proxy, tier_places / "cache" / ".staging", s3_server.client(), s3_bucket)
        proxy.release()
        engine.close()


def test_our_own_upload_is_no_foreign_change(held: Held) -> None:
    """Opened during the upload and written after it: what the store then has is ours."""
    held.hold()
    held.write(b"first")
    wait_for(lambda: held.proxy.held)
    entry = run(held.route.stat("file"))
    staged = run(held.route.stage("file", entry, None))
    os.pwrite(staged.fileno(), b"FIRST", 0)
    held.settle()
    os.pwrite(staged.fileno(), b"again", 0)
    run(held.route.commit("file", staged))
    run(held.engine.drain(60))
    os.pwrite(staged.fileno(), b"third", 0)
    run(held.route.release("file", staged))
    held.settle()
    assert held.conflicts() == 0
    assert sorted(run(held.route.list(""))) == ["file"]
    assert held.stored() == b"third"
    assert list(held.staging.iterdir()) == []


def test_what_was_acknowledged_is_sent_however_the_file_changes(held: Held) -> None:
    """Bytes written after close() and not closed again stay here; those that were closed reach the store."""
    held.hold()
    held.write(b"closed")
    wait_for(lambda: held.proxy.held)
    staged = run(held.route.stage("file", run(held.route.stat("file")), None))
    os.pwrite(staged.fileno(), b"open..", 0)
    held.settle()
    assert held.stored() == b"closed"
    run(held.route.release("file", staged))
    held.settle()
    assert held.stored() == b"open.."
    assert held.conflicts() == 0


def test_staging_is_empty_once_readers_of_a_replaced_file_have_gone(held: Held) -> None:
    held.hold()
    held.write(b"first")
    wait_for(lambda: held.proxy.held)
    reader = run(held.route.open("file"))
    held.write(b"second")
    held.settle()
    assert reader.read_now(0, 10) == b"first"
    reader.close()
    held.engine.uploaders[held.route.backend.identity].wake()
    wait_for(lambda: not list(held.staging.iterdir()))
