"""The library face: several processes that read one cold object at the same time share what is fetched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import fsspec

from benchmarks.environment import MIB, Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.library import in_processes
from benchmarks.mounts import places

PROCESSES: Final = 8
TITLE: Final = "8 processes that read one cold 1 GiB object through tier::s3://"


def _read(bucket: str, key: str) -> int:
    filesystem, root = fsspec.url_to_fs(f"tier::s3://{bucket}")
    total = 0
    with filesystem.open(f"{root}/{key}") as file:
        while data := file.read(MIB):
            total += len(data)
    return total


@workload(
    Figure("shared-cold", f"{TITLE}: bytes fetched per byte of the object", "x", limit=1.05, at_most=True),
    Figure("shared-cold.speed", f"{TITLE}, all of them together", "MB/s"),
    most_rounds=3,
)
@contextmanager
def shared_cold(environment: Environment) -> Iterator[Sides]:
    large = environment.large()
    sides = Sides({})

    def ours() -> Values:
        with environment.folder() as home, environment.variables(places(home)):
            with environment.counters(bucket=large.bucket) as counters:
                began = time.perf_counter()
                counts = in_processes(_read, [(large.bucket, large.key)] * PROCESSES, "spawn")
                passed = time.perf_counter() - began
            sides.facts["fsdriver"] = counters.facts
        if counts != [large.size] * PROCESSES:
            raise WrongContent(f"processes read {counts} bytes of {large.size}")
        return {"x": counters.bytes_sent / large.size, "MB/s": PROCESSES * large.size / passed / 1e6}

    sides.runs = {"fsdriver": ours}
    yield sides
