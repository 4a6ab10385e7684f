"""Many ranges of many files at once: what is asked of the store, and what failures do."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver import runtime
from fsdriver.errors import AccessDenied, NotFound
from fsdriver.filesystem import TierFileSystem
from fsdriver.testing.servers import S3Service
from tests.fixtures_tier import ROUTE
from tests.servers import FaultyProxy
from tests.waiting import wait_for

MIB = 1 << 20
FILES = 6
SIZE = 12 * MIB


@pytest.fixture
def proxy(s3_server: S3Service) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def tables(s3_server: S3Service, s3_bucket: str) -> dict[str, bytes]:
    """Objects that another program made, by fsspec path."""
    client, contents = s3_server.client(), {}
    for number in range(FILES):
        contents[f"{ROUTE}/t/{number}.parquet"] = data = os.urandom(SIZE)
        client.put_object(Bucket=s3_bucket, Key=f"prefix/t/{number}.parquet", Body=data)
    return contents


@pytest.fixture
def fs(s3_config: dict[str, Any], proxy: FaultyProxy) -> TierFileSystem:
    s3_config["backend"]["hot"] |= {"endpoint": proxy.endpoint, "retries": 0}
    return TierFileSystem(config=s3_config)


def gets(proxy: FaultyProxy) -> int:
    return proxy.count("GET", ".parquet")


def test_columns_of_many_files(fs: TierFileSystem, proxy: FaultyProxy, tables: dict[str, bytes]) -> None:
    """Footer, and two columns in four row groups; neighbours, some asked for twice."""
    columns = [(group * 3 * MIB + at, group * 3 * MIB + at + 300_000) for group in range(4) for at in (0, 300_000)]
    wanted = [
        (path, *span) for path in tables for span in [*columns, *columns[:2], (100_000, 500_000), (SIZE - 65_536, SIZE)]
    ]
    paths, starts, ends = map(list, zip(*wanted, strict=True))
    found = fs.cat_ranges(paths, starts, ends, on_error="raise")
    assert all(data == tables[path][start:end] for data, (path, start, end) in zip(found, wanted, strict=True))
    assert gets(proxy) == FILES * 5
    asked = FILES * (len(columns) * 300_000 + 65_536)
    assert proxy.sent <= 1.5 * asked
    assert proxy.count("HEAD") == 0, "the names came in one listing"
    assert len(proxy.seen) - gets(proxy) <= 5


def test_requests_at_a_time_are_bounded(fs: TierFileSystem, proxy: FaultyProxy, tables: dict[str, bytes]) -> None:
    spans = [(start, start + 100_000) for start in range(0, SIZE, 3 * MIB)]
    wanted = [(path, *span) for path in tables for span in spans]
    paths, starts, ends = map(list, zip(*wanted, strict=True))
    assert len(fs.cat_ranges(paths, starts, ends)) == FILES * 4
    assert gets(proxy) == FILES * 4
    assert proxy.most_connections <= 10, "pool_size"


def test_a_range_that_fails_leaves_the_others(fs: TierFileSystem, proxy: FaultyProxy, tables: dict[str, bytes]) -> None:
    path, other = list(tables)[:2]
    proxy.fail(1, 403, method="GET", match=path.removeprefix(f"{ROUTE}/"))
    paths = [path, path, path, other, f"{ROUTE}/t/missing", "nowhere/at/all"]
    starts = [0, 5 * MIB, 11 * MIB, 7, 0, 0]
    ends = [100_000, 5 * MIB + 100_000, 12 * MIB, 9, 10, 10]
    found = fs.cat_ranges(paths, starts, ends)
    failed = [isinstance(one, AccessDenied) for one in found[:3]]
    assert sum(failed) == 1
    for data, bad, start, end in zip(found, failed, starts, ends[:3], strict=False):
        assert bad or data == tables[path][start:end]
    assert found[3] == tables[other][7:9]
    assert all(isinstance(one, NotFound) for one in found[4:])


def test_the_first_failure_ends_the_rest(fs: TierFileSystem, proxy: FaultyProxy, tables: dict[str, bytes]) -> None:
    paths = list(tables)
    assert fs.find(f"{ROUTE}/t") == sorted(paths)
    proxy.fail(1000, 403, method="GET", match="t/0.parquet")
    proxy.fail(1000, hold=True, method="GET", match="t/1.parquet")
    with pytest.raises(AccessDenied):
        fs.cat_ranges(paths[:2] * 8, [number * MIB for number in range(8) for _ in range(2)], None, on_error="raise")
    cache = fs._namespace.engine.cache
    wait_for(lambda: cache.stats().filling == 0 and cache.stats().buffers == 0)
    before = proxy.sent
    proxy.release()
    wait_for(lambda: proxy.held == 0)
    assert proxy.sent == before
    assert fs.cat_ranges(paths[1:2], [0], [10]) == [tables[paths[1]][:10]], "nothing is stuck"


def test_an_object_replaced_meanwhile_gives_the_present_version(
    fs: TierFileSystem, s3_server: S3Service, s3_bucket: str, tables: dict[str, bytes]
) -> None:
    path = next(iter(tables))
    assert fs.info(path)["size"] == SIZE
    data = os.urandom(SIZE)
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/t/0.parquet", Body=data)
    assert fs.cat_ranges([path] * 2, [0, 6 * MIB], [10, 6 * MIB + 10]) == [data[:10], data[6 * MIB : 6 * MIB + 10]]


def test_what_is_here_is_read_in_the_calling_thread(
    fs: TierFileSystem, proxy: FaultyProxy, tables: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = list(tables)
    with fs.open(paths[0]) as file:
        file.read()
    fs.cat_file(paths[0])
    wait_for(lambda: fs._namespace.engine.cache.stats().filling == 0)
    before = len(proxy.seen)
    seen: list[Any] = []
    data = tables[paths[0]]
    with monkeypatch.context() as patch:
        patch.setattr(runtime.get_loop(), "call_soon_threadsafe", lambda *call, **_: seen.append(call))
        assert fs.cat_ranges([paths[0]] * 3, [0, 5, -9], [4, 9, None]) == [data[:4], data[5:9], data[-9:]]
    assert (seen, len(proxy.seen)) == ([], before)


def test_random_reads_of_a_local_file_read_no_more_than_asked(fs: TierFileSystem, tables: dict[str, bytes]) -> None:
    path = next(iter(tables))
    fs.warm(path)

    def read() -> int:
        """Bytes this process has read (proc(5), rchar)."""
        return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].split()[0])

    with fs.open(path) as file:
        before = read()
        for number in range(200):
            file.seek(number * 50_001)
            assert len(file.read(4096)) == 4096
        assert read() - before < 1.3 * 200 * 4096


def test_ranges_from_a_coroutine(fs: TierFileSystem, tables: dict[str, bytes]) -> None:
    before = threading.active_count()

    async def main() -> Any:
        own = TierFileSystem(**fs.storage_options, asynchronous=True)
        return await own._cat_ranges(list(tables), 5, [9] * FILES)

    assert asyncio.run(main()) == [data[5:9] for data in tables.values()]
    assert threading.active_count() < before + 40
