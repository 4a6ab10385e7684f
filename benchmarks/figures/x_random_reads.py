"""The library face: random 4 KiB reads of a cached file of 1 GiB through one open file."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.library import library

READS: Final = 100_000
SIZE: Final = 4096
TITLE: Final = "100,000 random 4 KiB reads of a cached 1 GiB file through tier::s3://"


def _read(file: Any, offsets: Sequence[int]) -> Values:
    total = 0
    seek, read = file.seek, file.read
    used, began = time.thread_time(), time.perf_counter()
    for offset in offsets:
        seek(offset)
        total += len(read(SIZE))
    passed, used = time.perf_counter() - began, time.thread_time() - used
    if total != len(offsets) * SIZE:
        raise WrongContent(f"{total} bytes instead of {len(offsets) * SIZE}")
    return {"reads/s": len(offsets) / passed, "reads/CPU s": len(offsets) / used}


@workload(
    Figure("random-reads", TITLE, "reads/s", limit=200_000),
    Figure("random-reads.native", f"{TITLE}; native is Python's open()", "reads/s", against="native"),
    Figure("random-reads.cpu", f"{TITLE}, by processor time", "reads/CPU s", limit=200_000),
)
@contextmanager
def random_reads(environment: Environment) -> Iterator[Sides]:
    large = environment.large()

    def offsets() -> list[int]:
        return [random.randrange(large.size - SIZE) for _ in range(READS)]

    with library(environment, large.bucket) as (filesystem, root):
        path = f"{root}/{large.key}"
        filesystem.warm(path)

        def ours() -> Values:
            with filesystem.open(path) as file:
                return _read(file, offsets())

        def native() -> Values:
            with large.path.open("rb") as file:
                return _read(file, offsets())

        yield Sides({"fsdriver": ours, "native": native}, warm_up=True)
