"""W4: a few random pieces of a large object that nobody has read before."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import obstore

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import THREADS, check_parts

READS: Final = 200
BLOCK: Final = 128 << 10
TITLE: Final = "200 cold random 128 KiB reads of a 1 GiB object, 8 threads"


@workload(
    Figure("W4", TITLE, "reads/s", against="direct", limit=0.7),
    Figure("W4.bytes", "W4: bytes fetched per byte asked", "x", limit=1.5, at_most=True),
    Figure("W4.s3fs", TITLE, "reads/s", against="s3fs"),
    Figure("W4.rclone", TITLE, "reads/s", against="rclone"),
)
@contextmanager
def cold_random(environment: Environment) -> Iterator[Sides]:
    large = environment.large()
    store = environment.store(large.bucket)
    sides = Sides({})

    def timed(read: Callable[[int], bytes]) -> float:
        offsets = [BLOCK * number for number in random.sample(range(large.size // BLOCK), READS)]
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(pool.map(read, offsets))
        passed = time.perf_counter() - began
        check_parts(dict(zip(offsets, parts, strict=True)), large.path)
        return READS / passed

    def direct() -> Values:
        with environment.counters(bucket=large.bucket) as counters:
            speed = timed(lambda start: bytes(obstore.get_range(store, large.key, start=start, length=BLOCK)))
        sides.facts["direct"] = counters.facts
        return {"reads/s": speed}

    def mounted(side: str) -> Run:
        def run() -> Values:
            with environment.mount(large.bucket, side) as mount:
                with environment.counters(mount) as counters:
                    descriptor = os.open(mount.directory / large.key, os.O_RDONLY)
                    speed = timed(lambda start: os.pread(descriptor, BLOCK, start))
                    os.close(descriptor)
                sides.facts[side] = counters.facts
            return {"reads/s": speed, "x": counters.bytes_sent / (READS * BLOCK)}

        return run

    sides.runs = {"direct": direct, **{side: mounted(side) for side in ("fsdriver", "s3fs", "rclone")}}
    yield sides
