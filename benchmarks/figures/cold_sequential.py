"""First read of a large object through a mount with an empty cache, against the S3 client's own parallel download."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import obstore

from benchmarks.environment import GIB, MIB, Environment, requests_of
from benchmarks.harness import Goal, Pair, figure
from benchmarks.workloads import read_through

THREADS: Final = 8
RANGE: Final = 8 * MIB


def download(environment: Environment, bucket: str, key: str, size: int, *, keep: bool = False) -> float:
    """MB/s of ranged GETs by obstore; the bytes are thrown away, or kept in a file."""
    store = environment.store(bucket)
    with environment.folder() as folder, (folder / "kept").open("wb") as file:

        def fetch(start: int) -> int:
            data = obstore.get_range(store, key, start=start, end=min(start + RANGE, size))
            return os.pwrite(file.fileno(), data, start) if keep else len(data)

        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            total = sum(pool.map(fetch, range(0, size, RANGE)))
        passed = time.perf_counter() - began
    assert total == size
    return size / passed / 1e6


@contextmanager
def _cold(environment: Environment, *, keep: bool) -> Iterator[Pair]:
    bucket, key = environment.large_object(GIB)
    facts: dict[str, Any] = {}

    def ours() -> float:
        with environment.mount(f"s3://{bucket}") as mount:
            cpu, sent = mount.cpu_seconds(), environment.server_cpu_seconds()
            speed = read_through(mount.directory / key)
            facts["daemon CPU s"] = mount.cpu_seconds() - cpu
            facts["S3 server CPU s"] = environment.server_cpu_seconds() - sent
            facts["GET requests"] = requests_of(mount.status()).get("get", 0)
        return speed

    def reference() -> float:
        own, sent = sum(os.times()[:2]), environment.server_cpu_seconds()
        speed = download(environment, bucket, key, GIB, keep=keep)
        facts["reference CPU s"] = sum(os.times()[:2]) - own
        facts["S3 server CPU s for the reference"] = environment.server_cpu_seconds() - sent
        return speed

    yield Pair(ours, reference, warm_up=False, facts=facts)


def _register(name: str, against: str, goal: Goal | None, *, keep: bool) -> Callable[..., Any]:
    title = "cold sequential 1 MiB reads of a 1 GiB object"

    @figure(name, title, unit="MB/s", against=f"obstore, 8 threads of 8 MiB ranges, bytes {against}", goal=goal)
    @contextmanager
    def cold(environment: Environment) -> Iterator[Pair]:
        with _cold(environment, keep=keep) as pair:
            yield pair

    return cold


cold_sequential = _register("cold-sequential", "thrown away", Goal(0.7), keep=False)
cold_sequential_kept = _register("cold-sequential-kept", "kept in a file, as the cache keeps them", None, keep=True)
