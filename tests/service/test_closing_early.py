"""Closing a file whose read-ahead is under way: what nobody else waits for is fetched no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from fsdriver.filesystem import TierFileSystem
from fsdriver.testing.servers import S3Service
from tests.fixtures_tier import ROUTE
from tests.servers import FaultyProxy
from tests.waiting import wait_for

MIB = 1 << 20
SIZE = 64 * MIB
PATH = f"{ROUTE}/large"


@pytest.fixture
def proxy(s3_server: S3Service) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def data(s3_server: S3Service, s3_bucket: str) -> bytes:
    data = os.urandom(SIZE)
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/large", Body=data)
    return data


@pytest.fixture
def fs(s3_config: dict[str, Any], proxy: FaultyProxy) -> TierFileSystem:
    s3_config["backend"]["hot"] |= {"endpoint": proxy.endpoint, "retries": 0}
    return TierFileSystem(config=s3_config)


def _read_ahead(fs: TierFileSystem, proxy: FaultyProxy, data: bytes) -> Any:
    """A file read in sequence, with requests ahead of it that the store does not answer."""
    file = fs.open(PATH)
    for start in range(0, 4 * MIB, MIB):
        assert file.read(MIB) == data[start : start + MIB]
    wait_for(lambda: fs._namespace.engine.cache.stats().buffers == 0)
    proxy.fail(1000, hold=True, method="GET", match="/large")
    for start in range(4 * MIB, 6 * MIB, MIB):
        if file.raw._reader.read_now(start, MIB) is None:
            break
    wait_for(lambda: proxy.held > 0)
    return file


def test_requests_end_with_the_last_reader(fs: TierFileSystem, proxy: FaultyProxy, data: bytes) -> None:
    file = _read_ahead(fs, proxy, data)
    cache = fs._namespace.engine.cache
    before = cache.stats().fetched_bytes
    file.close()
    wait_for(lambda: cache.stats().filling == 0)
    wait_for(lambda: cache.stats().buffers == 0)
    sent, asked = proxy.sent, proxy.count("GET", "/large")
    proxy.release()
    wait_for(lambda: proxy.held == 0)
    assert (proxy.sent, proxy.count("GET", "/large"), cache.stats().fetched_bytes) == (sent, asked, before)
    assert sent < SIZE / 2


def test_requests_that_another_reader_waits_for_go_on(fs: TierFileSystem, proxy: FaultyProxy, data: bytes) -> None:
    file = _read_ahead(fs, proxy, data)
    with fs.open(PATH) as other:
        file.close()
        proxy.release()
        assert other.read() == data
    assert fs._namespace.engine.cache.stats().fetched_bytes == SIZE
