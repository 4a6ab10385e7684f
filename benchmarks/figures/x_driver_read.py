"""The first read of a large object by the driver alone, without a kernel between: what the mount can reach at best."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.environment import MIB, Environment
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.workloads import download
from fsdriver.runtime import run


@workload(
    Figure("cold-driver", "cold sequential 1 MiB reads of a 1 GiB object, driver alone", "MB/s", against="direct"),
)
@contextmanager
def cold_driver(environment: Environment) -> Iterator[Sides]:
    large = environment.large()
    store = environment.store(large.bucket)

    def ours() -> Values:
        with environment.engine(f"s3://{large.bucket}", write="back") as engine:
            route, path = engine.route(f"/{large.key}")
            began = time.perf_counter()
            with run(route.open(path)) as reader:
                for offset in range(0, large.size, MIB):
                    data = reader.read_now(offset, MIB)
                    if data is None:
                        data = run(reader.read(offset, MIB))
                    assert len(data) == MIB
            return {"MB/s": large.size / (time.perf_counter() - began) / 1e6}

    yield Sides({"fsdriver": ours, "direct": lambda: {"MB/s": download(store, large.key, large.size)}})
