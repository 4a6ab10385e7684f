"""A file that is removed or replaced while it is uploaded: its disk space is free at once, and the outcome is right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.entry import Changes
from fsdriver.routes.route import Route
from fsdriver.runtime import run
from tests.servers import FaultyProxy
from tests.service.routes import write
from tests.waiting import wait_for

pytestmark = pytest.mark.service

MIB = 1 << 20
PUT_LIMIT = 6 * MIB
SIZES = {"one request": 5 * MIB, "parts": 16 * MIB}


@dataclass
class Slow:
    """A route whose store answers uploads of ``large`` only when it is told to."""

    engine: Engine
    proxy: FaultyProxy
    bucket: str
    client: object
    staging: Path

    @property
    def route(self) -> Route:
        return self.engine.routes[0]

    def begin(self, size: int) -> None:
        """Write ``large`` and wait until its upload is under way."""
        self.proxy.fail(100, hold=True, method="PUT", match="/large")
        write(self.route, "large", b"a" * size)
        wait_for(lambda: self.proxy.held)

    def held_bytes(self) -> int:
        """Disk space that staging takes, with that of removed files this process has still open."""
        sizes = {}
        for entry in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{entry}").startswith(f"{self.staging}/"):
                    status = os.stat(f"/proc/self/fd/{entry}")
                    sizes[status.st_ino] = status.st_size
            except FileNotFoundError:
                continue
        for path in self.staging.iterdir():
            sizes[path.stat().st_ino] = path.stat().st_size
        return sum(sizes.values())

    def keys(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix="prefix/").get("Contents", [])
        return {item["Key"].removeprefix("prefix/") for item in found if "/.fsdriver/" not in item["Key"]}

    def settle(self) -> None:
        self.proxy.release()
        run(self.engine.drain(60))


@pytest.fixture
def slow(s3_config, s3_server, s3_bucket, tier_places) -> Iterator[Slow]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
        engine = open_engine(Config.model_validate(s3_config), write="back")
        backend = engine.routes[0].backend
        backend.put_limit, backend.part_size = PUT_LIMIT, 5 * MIB
        yield Slow(engine, proxy, s3_bucket, s3_server.client(), tier_places / "cache" / ".staging")
        proxy.release()
        engine.close()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_removing_a_file_frees_its_disk_space_at_once(slow: Slow, size: int) -> None:
    slow.begin(size)
    assert slow.held_bytes() == size
    run(slow.route.remove("large"))
    wait_for(lambda: slow.held_bytes() == 0)
    slow.settle()
    assert slow.keys() == set()
    assert slow.client.list_multipart_uploads(Bucket=slow.bucket).get("Uploads", []) == []
    assert slow.engine.pending() == (0, 0)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_replacing_a_file_sends_the_new_one(slow: Slow, size: int) -> None:
    slow.begin(size)
    write(slow.route, "new", b"b" * 1000)
    run(slow.route.rename("new", "large"))
    wait_for(lambda: slow.held_bytes() == 1000)
    slow.settle()
    assert slow.keys() == {"large"}
    assert slow.client.get_object(Bucket=slow.bucket, Key="prefix/large")["Body"].read() == b"b" * 1000
    assert slow.engine.uploaders[slow.route.backend.identity].counters.conflicts == 0


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_foreign_file_of_that_name_is_not_removed(slow: Slow, size: int) -> None:
    """The upload that was given up would have lost; so does the removal of what it never made."""
    slow.begin(size)
    slow.client.put_object(Bucket=slow.bucket, Key="prefix/large", Body=b"foreign")
    run(slow.route.remove("large"))
    wait_for(lambda: slow.held_bytes() == 0)
    slow.settle()
    assert slow.client.get_object(Bucket=slow.bucket, Key="prefix/large")["Body"].read() == b"foreign"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_file_renamed_during_its_upload_arrives_under_its_new_name(slow: Slow, size: int) -> None:
    slow.begin(size)
    run(slow.route.rename("large", "other"))
    slow.settle()
    assert slow.keys() == {"other"}
    assert slow.client.head_object(Bucket=slow.bucket, Key="prefix/other")["ContentLength"] == size


def test_a_change_of_attributes_alone_does_not_stop_an_upload(slow: Slow) -> None:
    slow.begin(SIZES["parts"])
    run(slow.route.set_attributes("large", Changes(mode=0o600)))
    slow.settle()
    assert slow.keys() == {"large"}
    assert slow.proxy.count("POST", "/large?uploads") == 1
