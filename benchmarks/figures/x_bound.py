"""The bound of the cache while several processes bring more than it holds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environment import MIB, Environment
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.library import in_processes
from fsdriver.cache import DiskCache, ObjectKey

PROCESSES: Final = 8
BOUND: Final = 512 * MIB
OBJECT: Final = 2 * MIB
OBJECTS: Final = 3 * BOUND // OBJECT // PROCESSES
LOOK_SECONDS: Final = 0.02


def _fill(directory: Path, number: int) -> int:
    """Bring objects into the cache, as the uploader does with what was written."""
    cache = DiskCache(directory, size=BOUND, min_free=0)
    data = memoryview(os.urandom(OBJECT))
    for at in range(OBJECTS):
        key = ObjectKey("bench", f"{number}/{at}", "1", OBJECT)
        path = cache.staging / f"{number}-{at}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, data)
        os.close(descriptor)
        cache.seal(key, path)
    sealed = cache.stats().sealed
    cache.close()
    return sealed


def _used(objects: Path) -> int:
    """Bytes of the files that have their place."""
    total = 0
    for folder, _, names in os.walk(objects):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(f"{folder}/{name}")
                total += min(status.st_size, status.st_blocks * 512)
    return total


@workload(
    Figure(
        "bound",
        "most bytes in the cache, of its bound, while 8 processes write 3 times that",
        "x",
        limit=1.01,
        at_most=True,
    ),
    Figure("bound.speed", "8 processes bring objects of 2 MiB into a full cache", "objects/s"),
)
@contextmanager
def bound(environment: Environment) -> Iterator[Sides]:
    def ours() -> Values:
        with environment.folder() as directory:
            DiskCache(directory, size=BOUND, min_free=0).close()
            ended = threading.Event()
            most = [0]

            def watch() -> None:
                while not ended.wait(LOOK_SECONDS):
                    most[0] = max(most[0], _used(directory / "objects"))

            watching = threading.Thread(target=watch)
            watching.start()
            try:
                began = time.perf_counter()
                sealed = sum(in_processes(_fill, [(directory, number) for number in range(PROCESSES)], "spawn"))
                passed = time.perf_counter() - began
            finally:
                ended.set()
                watching.join()
            return {"x": max(most[0], _used(directory / "objects")) / BOUND, "objects/s": sealed / passed}

    yield Sides({"fsdriver": ours})
