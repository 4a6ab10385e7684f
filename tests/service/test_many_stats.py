"""Sizes of many files asked for at once, and what reading them then asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fsdriver import runtime
from fsdriver.errors import IsDirectory, NotFound
from fsdriver.filesystem import TierFileSystem
from fsdriver.testing.servers import S3Service
from tests.fixtures_tier import ROUTE
from tests.servers import FaultyProxy

pytestmark = pytest.mark.feature("S4-10")


@pytest.fixture
def proxy(s3_server: S3Service) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def fs(s3_config: dict[str, Any], proxy: FaultyProxy) -> TierFileSystem:
    """Trusts sizes for 60 s."""
    s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
    return TierFileSystem(config=s3_config, ttl=60)


@pytest.fixture
def paths(s3_server: S3Service, s3_bucket: str) -> list[str]:
    """Three files alone in their directories, and forty in one, made by another program."""
    client = s3_server.client()
    names = [f"{number}/f" for number in range(3)] + [f"many/{number:02}" for number in range(40)]
    for number, name in enumerate(names):
        client.put_object(Bucket=s3_bucket, Key=f"prefix/{name}", Body=b"x" * (100 + number))
    return [f"{ROUTE}/{name}" for name in names]


def test_reading_asks_for_bytes_alone(fs: TierFileSystem, proxy: FaultyProxy, paths: list[str]) -> None:
    assert fs.get_many_stats(paths, concurrency=8) == (43, sum(range(100, 143)))
    assert proxy.count("HEAD") == 3, "one each, and a listing for the forty"
    asked = len(proxy.seen)
    assert asked <= 20
    assert [len(fs.cat_file(path)) for path in paths] == list(range(100, 143))
    assert len(proxy.seen) == asked + 43, "one GET each"
    assert fs.get_many_stats([*paths, paths[0]]) == (44, sum(range(100, 143)) + 100)
    assert len(proxy.seen) == asked + 43


def test_a_cold_small_file_is_fetched_by_the_thread_that_reads_it(
    fs: TierFileSystem, proxy: FaultyProxy, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fs.get_many_stats(paths)
    asked, seen = len(proxy.seen), list[Any]()
    with monkeypatch.context() as patch:
        patch.setattr(runtime.get_loop(), "call_soon_threadsafe", lambda *call, **_: seen.append(call))
        assert fs.cat_file(paths[0]) == b"x" * 100
        assert fs.cat_file(paths[1], 10, 20) == b"x" * 10
    assert (seen, len(proxy.seen)) == ([], asked + 2)
    proxy.fail(1, 500, method="GET", match=paths[2].removeprefix(f"{ROUTE}/"))
    assert fs.cat_file(paths[2]) == b"x" * 102, "what fails there is tried again on the event loop"


def test_a_change_through_the_driver_shows_at_once(fs: TierFileSystem, paths: list[str]) -> None:
    fs.get_many_stats(paths)
    fs.pipe_file(paths[0], b"longer than before" * 100)
    assert fs.get_many_stats(paths[:1]) == (1, 1800)
    assert fs.cat_file(paths[0]) == b"longer than before" * 100
    fs.rm_file(paths[1])
    with pytest.raises(NotFound):
        fs.get_many_stats(paths)


def test_after_its_time_a_size_is_asked_for_again(
    fs: TierFileSystem, proxy: FaultyProxy, s3_server: S3Service, s3_bucket: str, paths: list[str]
) -> None:
    fs.get_many_stats(paths[:1])
    route = fs._namespace.target(paths[0]).route
    later = [59.0]
    route.memory.clock = lambda: time.monotonic() + later[0]
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/0/f", Body=b"foreign")
    assert fs.get_many_stats(paths[:1]) == (1, 100)
    before = len(proxy.seen)
    later[0] = 61.0
    assert fs.get_many_stats(paths[:1]) == (1, 7)
    assert len(proxy.seen) > before


def test_what_is_no_file_is_told(fs: TierFileSystem, paths: list[str]) -> None:
    assert fs.get_many_stats([]) == (0, 0)
    with pytest.raises(IsDirectory):
        fs.get_many_stats([f"{ROUTE}/many"])
    with pytest.raises(NotFound, match="gone"):
        fs.get_many_stats([paths[0], f"{ROUTE}/gone"])
    with pytest.raises(ValueError, match="concurrency is 0"):
        fs.get_many_stats(paths, concurrency=0)
