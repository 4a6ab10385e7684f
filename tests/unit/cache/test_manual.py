"""Pins and removals by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fsdriver.cache import DiskCache, Evicted, ObjectKey

STORE = "s3|test|bucket"
KIB = 1 << 10


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def version(key: str, number: int = 1, size: int = 100 * KIB) -> ObjectKey:
    return ObjectKey(STORE, key, f"v{number}", size)


def put(cache: DiskCache, key: ObjectKey) -> None:
    path = cache.staging / "incoming"
    path.write_bytes(b"x" * key.size)
    cache.seal(key, path)


def here(cache: DiskCache, *keys: ObjectKey) -> list[ObjectKey]:
    return [key for key in keys if cache.contains(key)]


def test_one_object_goes_with_all_its_versions(cache: DiskCache) -> None:
    old, new, other = version("a", 1), version("a", 2), version("a/b")
    for key in (old, new, other):
        put(cache, key)
    assert cache.manual.evict(STORE, "a") == Evicted(files=2, bytes=200 * KIB)
    assert here(cache, old, new, other) == [other]
    assert cache.manual.evict(STORE, "a") == Evicted()


def test_what_is_open_or_pinned_stays_and_is_told(cache: DiskCache) -> None:
    for key in "abc":
        put(cache, version(key))
    cache.manual.pin(STORE, ["a"])
    with cache.open(version("b")) or pytest.fail("not there"):
        assert cache.manual.evict(STORE, "a") == Evicted(pinned=1)
        assert cache.manual.evict_below(STORE) == Evicted(files=1, bytes=100 * KIB, open=1, pinned=1)
    assert here(cache, *map(version, "abc")) == [version("a"), version("b")]


def test_a_pin_is_of_the_object_and_outlives_its_versions(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(300 * KIB, clock=Clock())
    cache.manual.pin(STORE, ["a", "not yet here"])
    assert cache.manual.pinned(STORE, "a")
    assert not cache.manual.pinned(STORE, "b")
    put(cache, version("a", 1))
    put(cache, version("a", 2))
    put(cache, version("b"))
    put(cache, version("c"))
    assert here(cache, version("a", 1), version("a", 2), version("b"), version("c")) == [
        version("a", 2),
        version("b"),
        version("c"),
    ], "the older version of a pinned object is of no more use"
    put(cache, version("d"))
    put(cache, version("e"))
    assert cache.contains(version("a", 2))
    assert cache.stats().pinned == 2
    cache.manual.unpin(STORE, ["a", "never pinned"])
    put(cache, version("f"))
    assert not cache.contains(version("a", 2))


def test_pins_are_kept_by_the_index(make_cache: Callable[..., DiskCache]) -> None:
    first, second = make_cache(), make_cache()
    first.manual.pin(STORE, ["a"])
    assert second.manual.pinned(STORE, "a"), "another process sees it"
    first.close()
    second.close()
    assert make_cache().manual.pinned(STORE, "a")
