"""The library face: one pass over many small cold files, by threads and by the forked workers of a data loader."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import fsspec
import obstore

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.library import in_processes, library
from benchmarks.mounts import places
from benchmarks.workloads import read_files
from fsdriver.testing.servers import REGION

FILES: Final = 2000
SIZE: Final = 100 << 10
WORKERS: Final = 4
TITLE: Final = "cold epoch over 2,000 files of 100 KiB through tier::s3://"


def _loader(make: Callable[[str], Callable[[str], int]], bucket: str, names: Sequence[str], listed: bool) -> float:
    """Files a second, as a data loader reads them: forked workers, each its share, file by file. In a process of its own."""
    order = random.sample(names, len(names))
    if listed:
        fsspec.url_to_fs(f"tier::s3://{bucket}")[0].find(bucket)
    began = time.perf_counter()
    total = sum(in_processes(_share, [(make, bucket, order[worker::WORKERS]) for worker in range(WORKERS)]))
    if total != len(names) * SIZE:
        raise WrongContent(f"{total} bytes instead of {len(names) * SIZE}")
    return len(names) / (time.perf_counter() - began)


def _share(make: Callable[[str], Callable[[str], int]], bucket: str, names: Sequence[str]) -> int:
    return sum(map(make(bucket), names))


def _tier(bucket: str) -> Callable[[str], int]:
    filesystem, root = fsspec.url_to_fs(f"tier::s3://{bucket}")
    return lambda name: len(filesystem.cat_file(f"{root}/{name}"))


def _direct(bucket: str) -> Callable[[str], int]:
    store = obstore.store.S3Store(
        bucket, endpoint=os.environ["AWS_ENDPOINT_URL"], region=REGION, client_options={"allow_http": True}
    )
    return lambda name: len(obstore.get(store, name).bytes())


@workload(
    Figure("library-epoch.threads", f"{TITLE}, 8 threads", "files/s", "threads", "direct", limit=0.9),
    Figure("library-epoch.workers", f"{TITLE}, 4 forked processes", "files/s", "workers", "direct workers", limit=0.9),
    Figure(
        "library-epoch.listed",
        f"{TITLE}, 4 processes forked by one that has listed them",
        "files/s",
        "listed",
        "direct workers",
        limit=0.9,
    ),
)
@contextmanager
def library_epoch(environment: Environment) -> Iterator[Sides]:
    block = os.urandom(SIZE)
    objects = {f"{number:05d}": number.to_bytes(8, "little") + block[8:] for number in range(FILES)}
    names = list(objects)
    bucket = environment.small_objects("epoch", objects)

    def threads() -> Values:
        with library(environment, bucket) as (filesystem, root):
            return {
                "files/s": read_files([f"{root}/{name}" for name in names], lambda path: len(filesystem.cat_file(path)))
            }

    def loader(make: Any, listed: bool) -> Values:
        # A fresh process: this one has used obstore, whose runtime does not survive a fork.
        with environment.folder() as home, environment.variables(places(home)):
            return {"files/s": in_processes(_loader, [(make, bucket, names, listed)], "spawn")[0]}

    yield Sides(
        {
            "threads": threads,
            "direct": lambda: {"files/s": read_files(names, _direct(bucket))},
            "workers": lambda: loader(_tier, listed=False),
            "listed": lambda: loader(_tier, listed=True),
            "direct workers": lambda: loader(_direct, listed=False),
        }
    )
