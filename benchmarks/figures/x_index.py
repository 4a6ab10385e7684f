"""The index of a cache of a million files: opening it, and looking one object up."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Sides, Values, workload
from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.cache.index import Finished
from fsdriver.cache.keys import home

ENTRIES: Final = 1_000_000
LOOKUPS: Final = 5000


def _key(number: int) -> ObjectKey:
    return ObjectKey("bench", f"data/{number:07d}", "1", 100)


@workload(
    Figure("index.open", "opening a cache with 1,000,000 entries", "s", limit=1.0, at_most=True),
    Figure("index.lookup", "looking an object up in an index of 1,000,000 entries", "us", limit=50, at_most=True),
    Figure("index.eviction", "the 64 entries of it that were used least recently", "ms"),
)
@contextmanager
def index(environment: Environment) -> Iterator[Sides]:
    with environment.folder() as directory:
        cache = DiskCache(directory, size=1 << 40, min_free=0)
        keys = sorted(map(_key, range(ENTRIES)), key=lambda key: key.place)
        for used in range(4):
            rows = [Finished(key, "") for key in keys[used * ENTRIES // 4 : (used + 1) * ENTRIES // 4]]
            cache._index.add(rows, float(used))  # noqa: SLF001 - the rows alone: a million files take minutes
        cache.close()

        def ours() -> Values:
            began = time.perf_counter()
            cache = DiskCache(directory, size=1 << 40, min_free=0)
            assert cache.stats().entries == ENTRIES
            opened = time.perf_counter() - began
            known = cache._index  # noqa: SLF001
            homes = [home("bench", f"data/{random.randrange(ENTRIES):07d}") for _ in range(LOOKUPS)]
            began = time.perf_counter()
            for place in homes:
                assert len(known.versions(place)) == 1
            each = (time.perf_counter() - began) / LOOKUPS
            began = time.perf_counter()
            assert len(known.oldest((-1.0, ""), 64)) == 64
            oldest = time.perf_counter() - began
            cache.close()
            return {"s": opened, "us": each * 1e6, "ms": oldest * 1e3}

        yield Sides({"fsdriver": ours})
