"""The first read of a large object by the driver alone, without a kernel between: what the mount can reach at best."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.environment import GIB, MIB, Environment
from benchmarks.figures.cold_sequential import download
from benchmarks.harness import Pair, figure
from fsdriver.runtime import run


@figure(
    "cold-driver",
    "cold sequential 1 MiB reads of a 1 GiB object, driver alone",
    unit="MB/s",
    against="obstore, 8 threads of 8 MiB ranges, bytes thrown away",
)
@contextmanager
def cold_driver(environment: Environment) -> Iterator[Pair]:
    bucket, key = environment.large_object(GIB)

    def ours() -> float:
        with environment.engine(f"s3://{bucket}", write="back") as engine:
            route, path = engine.route(f"/{key}")
            began = time.perf_counter()
            with run(route.open(path)) as reader:
                for offset in range(0, GIB, MIB):
                    data = reader.read_now(offset, MIB)
                    if data is None:
                        data = run(reader.read(offset, MIB))
                    assert len(data) == MIB
            return GIB / (time.perf_counter() - began) / 1e6

    yield Pair(ours, lambda: download(environment, bucket, key, GIB), warm_up=False)
