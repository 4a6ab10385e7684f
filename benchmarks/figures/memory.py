"""What the daemon holds in memory while much more than that streams through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.environment import GIB, Environment
from benchmarks.harness import Goal, Pair, figure
from benchmarks.workloads import read_through

PASSES: Final = 4


@figure(
    "memory-streaming",
    "peak memory of the daemon, 4 GiB read cold",
    unit="MiB",
    goal=Goal(200, of="value", at_most=True),
    higher_is_better=False,
)
@contextmanager
def memory_streaming(environment: Environment) -> Iterator[Pair]:
    bucket, key = environment.large_object(GIB)
    client = environment.service.client()
    keys = [f"copy{number}" for number in range(PASSES)]
    for copy in keys:
        client.copy_object(Bucket=bucket, Key=copy, CopySource={"Bucket": bucket, "Key": key})

    def ours() -> float:
        with environment.mount(f"s3://{bucket}") as mount:
            for copy in keys:
                read_through(mount.directory / copy)
            return mount.peak_memory()

    yield Pair(ours, warm_up=False)
