"""A store that lives in memory, counts what is asked of it and fails on demand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdriver.cache import DiskCache, ObjectKey


class Source:
    """One version of one object, served range by range."""

    def __init__(self, size: int, *, key: str = "k", version: str = "v1", seed: int = 7) -> None:
        self.data = random.Random(seed).randbytes(size)
        self.key = ObjectKey("s3|test|bucket", key, version, size)
        self.ranges: list[tuple[int, int]] = []
        self.failures: list[BaseException] = []
        self.gate: asyncio.Event | None = None
        self.short = 0

    @property
    def asked(self) -> int:
        """Bytes asked for so far."""
        return sum(end - start for start, end in self.ranges)

    async def fetch(self, start: int, end: int) -> memoryview:
        self.ranges.append((start, end))
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return memoryview(self.data)[start : end - self.short]


@pytest.fixture
def make_cache(tmp_path: Path) -> Iterator[Callable[..., DiskCache]]:
    """Caches on one directory; each is closed at the end."""
    made: list[DiskCache] = []

    def make(size: int = 1 << 30, **options: object) -> DiskCache:
        cache = DiskCache(tmp_path / "cache", size=size, **{"min_free": 0, **options})  # type: ignore[arg-type]
        made.append(cache)
        return cache

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make_cache: Callable[..., DiskCache]) -> DiskCache:
    return make_cache()


@pytest.fixture
def make_source() -> type[Source]:
    return Source
