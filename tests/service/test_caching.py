"""Hints to the cache on the fsspec face, and the commands on URLs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback
from obstore.store import S3Store

from fsdriver import engine as engines
from fsdriver.cli import main
from fsdriver.errors import IsDirectory, NoSpace, NotFound
from fsdriver.filesystem import TierFileSystem
from fsdriver.routes import prefetching
from fsdriver.routes.caching import Eviction
from fsdriver.routes.prefetching import Prefetched
from fsdriver.testing.servers import S3Service
from tests.fixtures_tier import ROUTE
from tests.servers import FaultyProxy
from tests.waiting import wait_for

MIB = 1 << 20


@pytest.fixture
def filled(s3_server: S3Service, s3_bucket: str) -> dict[str, bytes]:
    """Objects below the route's root that another program made, by fsspec path."""
    files = {
        "large": bytes(range(256)) * 12_000,
        "middle": bytes(200_000),
        "d/1": b"1" * 1000,
        "d/2": b"2" * 1000,
        "d/deeper/3": b"3" * 1000,
    }
    client = s3_server.client()
    for name, data in files.items():
        client.put_object(Bucket=s3_bucket, Key=f"prefix/{name}", Body=data)
    return {f"{ROUTE}/{name}": data for name, data in files.items()}


def fetches(fs: TierFileSystem) -> int:
    return fs._namespace.engine.cache.stats().fetches


def test_warm_brings_files_near(tier_s3: TierFileSystem, filled: dict[str, bytes]) -> None:
    assert tier_s3.warm(f"{ROUTE}/large") == len(filled[f"{ROUTE}/large"])
    assert tier_s3.warm([f"{ROUTE}/large", f"tier://{ROUTE}/d/1"]) == 1000
    callback = Callback()
    assert tier_s3.warm([ROUTE], recursive=True, jobs=2, callback=callback) == 202_000
    assert (callback.size, callback.value) == (5, 5)
    before = fetches(tier_s3)
    assert tier_s3.cat(list(filled)) == filled
    assert fetches(tier_s3) == before
    assert tier_s3.warm([ROUTE], recursive=True) == 0


def test_warm_from_a_coroutine(tier_s3: TierFileSystem, filled: dict[str, bytes]) -> None:
    import asyncio

    async def main() -> int:
        fs = TierFileSystem(**tier_s3.storage_options, asynchronous=True)
        return int(await fs._warm([f"{ROUTE}/d/1", f"{ROUTE}/d/2"]))

    assert asyncio.run(main()) == 2000


def test_warm_fails_as_reading_does(tier_s3: TierFileSystem, filled: dict[str, bytes]) -> None:
    with pytest.raises(NotFound):
        tier_s3.warm([f"{ROUTE}/gone"])
    with pytest.raises(IsDirectory, match="recursive=True"):
        tier_s3.warm(f"{ROUTE}/d")
    with pytest.raises(ValueError, match="jobs is 0"):
        tier_s3.warm(f"{ROUTE}/d/1", jobs=0)


def test_warm_tells_of_the_first_failure_and_fetches_the_others(
    s3_config: dict[str, Any], filled: dict[str, bytes]
) -> None:
    fs = TierFileSystem(config={**s3_config, "cache": {"size": "1 MiB"}})
    with pytest.raises(NoSpace, match=r"raise cache\.size"):
        fs.warm(ROUTE, recursive=True)
    assert fs._namespace.engine.cache.stats().entries == 4


@pytest.mark.parametrize("hint", [False, True], ids=["warm", "prefetch"])
def test_what_a_listing_said_is_not_asked_again_for_the_last_of_many(
    s3_config: dict[str, Any],
    s3_server: S3Service,
    filled: dict[str, bytes],
    hint: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefetching, "JOBS", 1)
    with FaultyProxy(s3_server.endpoint) as proxy, ThreadPoolExecutor(1) as pool:
        s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
        fs = TierFileSystem(config=s3_config)
        proxy.fail(1000, hold=True, method="GET", match="prefix/d/1")
        bring: Callable[..., Any] = fs.prefetch if hint else partial(fs.warm, jobs=1)
        done = pool.submit(bring, f"{ROUTE}/d", recursive=True)
        wait_for(lambda: proxy.held)
        fs.invalidate_cache()  # as if what was listed were out of date by now
        proxy.release()
        done.result(60)
        wait_for(lambda: fs._namespace.engine.cache.stats().entries == 3)
        assert proxy.count("HEAD", "prefix/d/") == 0


def hinted(fs: TierFileSystem) -> Prefetched:
    """Counts once all hints have been followed."""
    wait_for(lambda: fs.prefetched().waiting == 0)
    return fs.prefetched()


def test_prefetch_returns_at_once_and_counts(
    s3_config: dict[str, Any], s3_server: S3Service, filled: dict[str, bytes]
) -> None:
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"]["endpoint"] = proxy.endpoint
        fs = TierFileSystem(config=s3_config)
        proxy.fail(1000, hold=True)
        fs.prefetch([f"{ROUTE}/large"])
        fs.prefetch(f"{ROUTE}/d", recursive=True)
        assert fs.prefetched().waiting
        proxy.release()
        assert hinted(fs) == Prefetched(files=4, bytes=len(filled[f"{ROUTE}/large"]) + 3000)
        before = len(proxy.seen)
        assert fs.cat_file(f"{ROUTE}/large") == filled[f"{ROUTE}/large"]
        assert len(proxy.seen) == before
        proxy.fail(1000, 403, method="GET", match="middle")
        fs.prefetch(f"{ROUTE}/middle")
        fs.prefetch([f"{ROUTE}/gone"])
        fs.prefetch(f"{ROUTE}/d")
        fs.prefetch("nowhere/at/all")
        assert hinted(fs).failed == 4
        proxy.heal()
        assert fs.cat_file(f"{ROUTE}/middle") == filled[f"{ROUTE}/middle"]


def test_prefetch_fetches_few_at_a_time_and_ends_with_the_engine(
    s3_config: dict[str, Any], s3_server: S3Service, s3_bucket: str
) -> None:
    client = s3_server.client()
    for number in range(30):
        client.put_object(Bucket=s3_bucket, Key=f"prefix/many/{number:02}", Body=b"x" * 1000)
    with FaultyProxy(s3_server.endpoint) as proxy:
        s3_config["backend"]["hot"] |= {"endpoint": proxy.endpoint, "pool_size": "40"}
        fs = TierFileSystem(config=s3_config)
        assert len(fs.ls(f"{ROUTE}/many")) == 30
        proxy.fail(1000, hold=True, method="GET", match="many/")
        fs.prefetch(f"{ROUTE}/many", recursive=True)
        wait_for(lambda: proxy.held == prefetching.JOBS)
        assert fs.prefetched().waiting == 30
        fs._namespace.engine.close()
        assert (proxy.count("GET", "many/"), fs.prefetched().waiting) == (prefetching.JOBS, 0)


def test_prefetch_from_a_coroutine(tier_s3: TierFileSystem, filled: dict[str, bytes]) -> None:
    import asyncio

    async def main() -> TierFileSystem:
        fs = TierFileSystem(**tier_s3.storage_options, asynchronous=True)
        fs.prefetch([f"{ROUTE}/d/1", f"{ROUTE}/d/2"])
        return fs

    assert hinted(asyncio.run(main())) == Prefetched(files=2, bytes=2000)


def test_evict_and_pin(tier_s3: TierFileSystem, filled: dict[str, bytes]) -> None:
    tier_s3.warm(ROUTE, recursive=True)
    assert tier_s3.pin([f"{ROUTE}/d"], recursive=True) == 3
    assert tier_s3.unpin(f"{ROUTE}/d/2") == 1
    assert tier_s3._namespace.engine.cache.stats().pinned == 2
    assert tier_s3.evict(f"{ROUTE}/large") == Eviction(files=1, bytes=len(filled[f"{ROUTE}/large"]))
    with tier_s3.open(f"{ROUTE}/middle"):
        assert tier_s3.evict([ROUTE]) == Eviction(files=1, bytes=1000, open=1, pinned=2)
    assert tier_s3.evict([ROUTE]) == Eviction(files=1, bytes=200_000, pinned=2)
    with pytest.raises(NotFound):
        tier_s3.evict(f"{ROUTE}/gone")
    with pytest.raises(NotFound):
        tier_s3.pin([f"{ROUTE}/d/1", f"{ROUTE}/gone"])
    with pytest.raises(IsDirectory):
        tier_s3.pin(f"{ROUTE}/d")


def test_a_replaced_file_stays_pinned(tier_s3: TierFileSystem, filled: dict[str, bytes]) -> None:
    tier_s3.pin(f"{ROUTE}/d/1")
    tier_s3.pipe_file(f"{ROUTE}/d/1", b"new")
    assert tier_s3.cat_file(f"{ROUTE}/d/1") == b"new"
    wait_for(lambda: tier_s3.evict(f"{ROUTE}/d/1").pinned)  # a worker brings it into the cache


@pytest.fixture
def environment(s3_server: S3Service, tier_places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is reached with what the environment says."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)


def test_a_file_of_a_listing_costs_no_more_than_its_bytes(
    environment: None,
    filled: dict[str, bytes],
    s3_bucket: str,
    s3_server: S3Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"s3://{s3_bucket}/prefix/d"
    with FaultyProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert main(["warm", "-r", url]) == 0
        assert main(["pin", "-r", url]) == 0
        assert main(["unpin", "-r", url]) == 0
        assert [proxy.count(method, f"prefix/d/{name}") for method in ("HEAD", "GET") for name in ("1", "2")] == [
            0,
            0,
            1,
            1,
        ]
        capsys.readouterr()
        for command in ("warm", "pin", "evict"):
            assert main([command, f"{url}/gone"]) == 1
            assert capsys.readouterr().err == f"fsdriver: {url}/gone: no such file or directory\n"


def test_commands_on_urls_of_a_store(
    environment: None, filled: dict[str, bytes], s3_bucket: str, s3_config: dict[str, Any], capsys: Any
) -> None:
    url = f"s3://{s3_bucket}/prefix"
    assert main(["warm", f"{url}/large", f"{url}/d/1"]) == 0
    assert capsys.readouterr().out == "2 files in the cache: 3.1 MB fetched, 0 here already\n"
    assert main(["warm", "-r", f"tier::{url}"]) == 0
    assert capsys.readouterr().out == "5 files in the cache: 202.0 kB fetched, 2 here already\n"
    fs = TierFileSystem(config=s3_config)
    assert fs.cat(list(filled)) == filled
    assert fetches(fs) == 0, "a route and a URL share what is cached"
    assert main(["pin", "-r", f"{url}/d"]) == 0
    assert main(["evict", url]) == 1
    captured = capsys.readouterr()
    assert captured.out == "3 files pinned\n2 files evicted, 3.3 MB\n"
    assert captured.err == f"fsdriver: {url}: 3 files stay: pinned (fsdriver unpin)\n"
    assert main(["unpin", f"{url}/d/1", f"{url}/d/2", f"{url}/d/deeper/3"]) == 0
    assert main(["evict", f"{url}/d"]) == 0
    assert capsys.readouterr().out == "3 files unpinned\n3 files evicted, 3.0 kB\n"


def test_warming_a_tree_of_many_small_and_some_large_files(
    environment: None, s3_server: S3Service, s3_bucket: str, capsys: Any
) -> None:
    store = S3Store(
        s3_bucket,
        endpoint=s3_server.endpoint,
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
        client_options={"allow_http": True},
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put(f"tree/{n % 20}/{n:04}", b"%04d" % n * 250), range(2000)))
        list(pool.map(lambda n: store.put(f"tree/large/{n}", bytes([n]) * 20 * MIB), range(3)))
    url = f"s3://{s3_bucket}/tree"
    assert main(["warm", "--recursive", "--jobs", "16", url]) == 0
    assert capsys.readouterr() == ("2,003 files in the cache: 64.9 MB fetched, 0 here already\n", "")
    assert main(["warm", "-r", url]) == 0
    assert capsys.readouterr().out == "2,003 files in the cache: 0 bytes fetched, 2,003 here already\n"


def test_warming_can_be_interrupted(environment: None, s3_server: S3Service, s3_bucket: str, filled: Any) -> None:
    with FaultyProxy(s3_server.endpoint) as proxy:
        proxy.fail(1000, hold=True, method="GET", match="/large")
        url = f"s3://{s3_bucket}/prefix"
        command = [sys.executable, "-m", "fsdriver", "warm", "-r", url, "-o", f"endpoint={proxy.endpoint}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: proxy.held)
            wait_for(lambda: proxy.count("GET", "/prefix/d/deeper/3") and proxy.count("GET", "/prefix/middle"))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "fsdriver: interrupted"
        assert "in the cache: " in out
    assert main(["warm", "-r", url]) == 0


def test_commands_on_the_configured_tree(
    s3_config: dict[str, Any],
    filled: dict[str, bytes],
    config_file: Callable[[dict[str, Any]], Path],
    capsys: Any,
) -> None:
    config_file(s3_config)
    assert main(["warm", "-r", "tier://"]) == 0
    assert main(["pin", f"tier://{ROUTE}/large"]) == 0
    assert main(["evict", f"tier://{ROUTE}/"]) == 1
    captured = capsys.readouterr()
    assert (
        captured.out
        == "5 files in the cache: 3.3 MB fetched, 0 here already\n1 file pinned\n4 files evicted, 203.0 kB\n"
    )
    assert captured.err == f"fsdriver: tier://{ROUTE}/: 1 file stays: pinned (fsdriver unpin)\n"
    assert not engines._registry, "engines that a command opened are closed"


def test_what_is_wrong_with_a_url_is_said(environment: None, s3_bucket: str, tier_places: Path, capsys: Any) -> None:
    assert main(["warm", f"s3://{s3_bucket}/gone"]) == 1
    assert "no such file or directory" in capsys.readouterr().err
    assert main(["evict", "s3://no-such-bucket-here/x"]) == 1
    assert "the bucket 'no-such-bucket-here' does not exist" in capsys.readouterr().err
    assert main(["pin", "-o", "regoin=x", f"s3://{s3_bucket}/x"]) == 1
    assert "did you mean 'region'?" in capsys.readouterr().err
    assert main(["pin", "-o", "region=x", "tier://x"]) == 1
    assert "-o is for URLs of stores" in capsys.readouterr().err
    assert main(["pin", f"s3://{s3_bucket}"]) == 1
    assert "--recursive" in capsys.readouterr().err
