"""First read of a large object through a mount with an empty cache, against the S3 client's own parallel download."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import obstore
from obstore.store import S3Store

from benchmarks.environment import GIB, MIB, Environment
from benchmarks.harness import Goal, Pair, figure
from benchmarks.workloads import read_through

THREADS: Final = 8
RANGE: Final = 8 * MIB


def download(environment: Environment, bucket: str, key: str, size: int) -> float:
    """MB/s of ranged GETs by obstore, kept nowhere."""
    service = environment.service
    store = S3Store(
        bucket,
        endpoint=service.endpoint,
        access_key_id=service.access_key,
        secret_access_key=service.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )

    def fetch(start: int) -> int:
        return len(obstore.get_range(store, key, start=start, end=min(start + RANGE, size)))

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        total = sum(pool.map(fetch, range(0, size, RANGE)))
    assert total == size
    return size / (time.perf_counter() - began) / 1e6


@figure(
    "cold-sequential",
    "cold sequential 1 MiB reads of a 1 GiB object",
    unit="MB/s",
    against="obstore, 8 threads of 8 MiB ranges",
    goal=Goal(0.7),
)
@contextmanager
def cold_sequential(environment: Environment) -> Iterator[Pair]:
    bucket, key = environment.large_object(GIB)
    facts: dict[str, object] = {}

    def ours() -> float:
        with environment.mount(f"s3://{bucket}") as mount:
            before = mount.cpu_seconds()
            speed = read_through(mount.directory / key)
            facts["daemon CPU s"] = round(mount.cpu_seconds() - before, 2)
            facts["daemon memory MiB"] = round(mount.peak_memory())
            cache = mount.status().get("cache", {})
            if "fetched_bytes" in cache:
                facts["bytes fetched per byte read"] = cache["fetched_bytes"] / GIB
            return speed

    yield Pair(ours, lambda: download(environment, bucket, key, GIB), warm_up=False, facts=facts)
