"""One pass over many small files in random order by several threads, as a training loop makes it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import obstore
from obstore.store import S3Store

from benchmarks.environment import Environment, requests_between, requests_of
from benchmarks.harness import Pair, figure
from benchmarks.workloads import read_files

FILES: Final = 2000
SIZE: Final = 100 << 10
THREADS: Final = 8
NAMES: Final = [f"{number:05d}" for number in range(FILES)]


def _make(environment: Environment) -> str:
    return environment.small_objects("epoch", dict.fromkeys(NAMES, os.urandom(SIZE)))


def _download(store: S3Store) -> float:
    order = random.sample(NAMES, FILES)
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        count = sum(1 for _ in pool.map(lambda name: obstore.get(store, name).bytes(), order))
    return count / (time.perf_counter() - began)


@figure(
    "epoch-cold", "epoch over 2,000 files of 100 KiB, 8 threads, cold", unit="files/s", against="obstore, 8 threads"
)
@contextmanager
def epoch_cold(environment: Environment) -> Iterator[Pair]:
    bucket = _make(environment)
    store = environment.store(bucket)
    facts: dict[str, Any] = {}

    def ours() -> float:
        with environment.mount(f"s3://{bucket}") as mount:
            before = requests_of(mount.status())
            speed = read_files([str(mount.directory / name) for name in NAMES], THREADS)
            after = requests_of(mount.status())
            facts.update(requests_between(before, after))
        return speed

    yield Pair(ours, lambda: _download(store), warm_up=False, facts=facts)


@figure("epoch-warm", "epoch over 2,000 files of 100 KiB, 8 threads, again", unit="files/s", against="plain files")
@contextmanager
def epoch_warm(environment: Environment) -> Iterator[Pair]:
    bucket = _make(environment)
    with environment.folder() as folder, environment.mount(f"s3://{bucket}") as mount:
        data = os.urandom(SIZE)
        for name in NAMES:
            (folder / name).write_bytes(data)
        ours = [str(mount.directory / name) for name in NAMES]
        plain = [str(folder / name) for name in NAMES]
        yield Pair(lambda: read_files(ours, THREADS), lambda: read_files(plain, THREADS))
