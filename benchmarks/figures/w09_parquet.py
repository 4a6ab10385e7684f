"""W9: two of twenty columns of a parquet file that nobody has read before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from benchmarks.environment import Environment, WrongContent, upload
from benchmarks.harness import Figure, Run, Sides, Values, workload
from fsdriver.testing.servers import REGION

ROWS: Final = 1_310_720
GROUPS: Final = 4
COLUMNS: Final = 20
WANTED: Final = ["c03", "c11"]
TITLE: Final = "2 of 20 columns of a 200 MiB parquet file by pyarrow, cold"


@workload(
    Figure("W9", TITLE, "s", against="direct", limit=1.3, at_most=True),
    Figure("W9.bytes", "W9: bytes fetched per byte of the columns", "x", limit=1.3, at_most=True),
    Figure("W9.s3fs", TITLE, "s", against="s3fs"),
    Figure("W9.rclone", TITLE, "s", against="rclone"),
)
@contextmanager
def parquet(environment: Environment) -> Iterator[Sides]:
    generator = np.random.default_rng(7)
    whole = pa.table({f"c{number:02d}": generator.random(ROWS) for number in range(COLUMNS)})
    sides = Sides({})
    service = environment.service
    with environment.bucket() as bucket, environment.folder() as folder:
        pq.write_table(
            whole, folder / "t.parquet", row_group_size=ROWS // GROUPS, compression="none", use_dictionary=False
        )
        upload(service.client(), bucket, "t.parquet", folder / "t.parquet")
        expected = whole.select(WANTED)
        asked = _bytes_of_columns(folder / "t.parquet")
        s3 = pafs.S3FileSystem(
            access_key=service.access_key, secret_key=service.secret_key, region=REGION, scheme="http",
            endpoint_override=service.endpoint.removeprefix("http://"),
        )  # fmt: skip

        def timed(*arguments: Any, **options: Any) -> float:
            began = time.perf_counter()
            table = pq.read_table(*arguments, columns=WANTED, **options)
            passed = time.perf_counter() - began
            if not table.equals(expected):
                raise WrongContent("other values than were written")
            return passed

        def direct() -> Values:
            with environment.counters(bucket=bucket) as counters:
                passed = timed(f"{bucket}/t.parquet", filesystem=s3)
            counters.facts["bytes fetched per byte asked"] = counters.bytes_sent / asked
            sides.facts["direct"] = counters.facts
            return {"s": passed}

        def mounted(side: str) -> Run:
            def run() -> Values:
                with environment.mount(bucket, side) as mount:
                    with environment.counters(mount) as counters:
                        passed = timed(mount.directory / "t.parquet")
                    sides.facts[side] = counters.facts
                return {"s": passed, "x": counters.bytes_sent / asked}

            return run

        sides.runs = {"direct": direct, **{side: mounted(side) for side in ("fsdriver", "s3fs", "rclone")}}
        yield sides


def _bytes_of_columns(path: Any) -> int:
    data = pq.ParquetFile(path).metadata
    chunks = [data.row_group(group).column(column) for group in range(GROUPS) for column in range(COLUMNS)]
    return sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema in WANTED)
