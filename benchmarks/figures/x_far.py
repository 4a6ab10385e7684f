"""The first read of a large object of a store that gives each connection a fixed rate, as S3 does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from obstore.store import S3Store

from benchmarks.environment import MIB, Environment
from benchmarks.far import far
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.workloads import download
from fsdriver.runtime import run
from fsdriver.testing.servers import REGION

SIZE: Final = 512 * MIB
LATENCY: Final = 0.02
RATE: Final = 5e6


@workload(
    Figure(
        "far",
        "cold sequential read of a 512 MiB object, 20 ms away at 5 MB/s a connection, driver alone",
        "MB/s",
        against="direct",
    ),
)
@contextmanager
def far_sequential(environment: Environment) -> Iterator[Sides]:
    large = environment.large(SIZE)
    service = environment.service
    with far(service.endpoint, LATENCY, RATE) as endpoint:
        store = S3Store(
            large.bucket,
            endpoint=endpoint,
            access_key_id=service.access_key,
            secret_access_key=service.secret_key,
            region=REGION,
            client_options={"allow_http": True},
        )

        def ours() -> Values:
            with environment.engine(f"s3://{large.bucket}", write="back", endpoint=endpoint) as engine:
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
