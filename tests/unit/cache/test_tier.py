"""The memory tier: its bound, what it takes, threads and forks."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable

from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.cache.tier import LARGEST, OVERHEAD, MemoryTier

KIB = 1 << 10
MIB = 1 << 20
STORE = "s3|test|bucket"


def tier(size: int) -> MemoryTier:
    return MemoryTier(size, itertools.count().__next__)


def test_large_objects_are_not_kept() -> None:
    memory = tier(64 * MIB)
    memory.offer("small", bytes(LARGEST))
    memory.offer("large", bytes(LARGEST + 1))
    assert memory.get("small") == bytes(LARGEST)
    assert memory.get("large") is None
    assert memory.stats().entries == 1
    few = tier(80 * KIB)
    few.offer("most of it", bytes(11 * KIB))
    assert few.get("most of it") is None, "one object does not take more than an eighth"


def test_what_is_handed_out_is_what_was_offered() -> None:
    memory, data = tier(MIB), b"x" * 1000
    memory.offer("a", data)
    assert memory.get("a") is data


def test_nothing_is_kept_without_memory() -> None:
    memory = tier(0)
    memory.offer("a", b"")
    assert memory.get("a") is None
    assert memory.stats().entries == 0


def test_the_bound_counts_what_an_object_takes_beside_its_bytes() -> None:
    memory = tier(100 * KIB)
    for number in range(1000):
        memory.offer(str(number), b"")
    stats = memory.stats()
    assert stats.entries == 100 * KIB // OVERHEAD
    assert stats.bytes == stats.entries * OVERHEAD <= stats.size
    assert stats.evictions == 1000 - stats.entries


def test_discard_and_clear() -> None:
    memory = tier(MIB)
    for name in "abc":
        memory.offer(name, name.encode())
    memory.discard("a")
    memory.discard("never there")
    assert [memory.get(name) for name in "abc"] == [None, b"b", b"c"]
    memory.clear()
    assert (memory.stats().entries, memory.stats().bytes) == (0, 0)


def test_threads_share_it() -> None:
    memory, wrong = tier(300 * KIB), []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(3000):
            number = chance.randrange(60)
            data = memory.get(str(number))
            if data is None:
                memory.offer(str(number), bytes([number]) * (number * 200))
            elif data != bytes([number]) * (number * 200):
                wrong.append(number)
            if chance.random() < 0.01:
                memory.discard(str(number))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = memory.stats()
    assert not wrong
    assert stats.bytes <= stats.size
    assert stats.hits + stats.offered <= 6 * 3000


def test_a_forked_child_goes_on(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(memory=MIB)
    key = ObjectKey(STORE, "k", "v", 3)
    cache.remember(key, b"abc")
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            cache.remembered(key)

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                ok = cache.remembered(key) == b"abc"
                cache.remember(ObjectKey(STORE, "other", "v", 1), b"x")
                os._exit(0 if ok and cache.memory.stats().entries == 2 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
    assert cache.memory.stats().entries == 1


# -- in front of the disk --------------------------------------------------------------------------------------------


def put(cache: DiskCache, key: ObjectKey) -> None:
    path = cache.staging / "incoming"
    path.write_bytes(b"x" * key.size)
    cache.seal(key, path)


def test_other_versions_are_other_objects(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(memory=MIB)
    cache.remember(ObjectKey(STORE, "k", "v1", 3), b"abc")
    assert cache.remembered(ObjectKey(STORE, "k", "v2", 3)) is None
    assert cache.remembered(ObjectKey(STORE, "k", "v1", 3)) == b"abc"


def test_what_is_read_from_memory_stays_on_disk(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(300 * KIB, memory=MIB, clock=itertools.count(1).__next__)
    keys = [ObjectKey(STORE, name, "v", 100 * KIB) for name in "abcd"]
    for key in keys[:3]:
        put(cache, key)
    cache.remember(keys[0], b"x" * 100 * KIB)
    assert cache.remembered(keys[0])
    put(cache, keys[3])
    assert [cache.contains(key) for key in keys] == [True, False, True, True]


def test_what_is_discarded_or_evicted_by_hand_leaves_memory(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(memory=MIB)
    keys = [ObjectKey(STORE, name, "v", 3) for name in "ab"]
    for key in keys:
        put(cache, key)
        cache.remember(key, b"xxx")
    cache.discard(keys[0])
    assert [cache.remembered(key) for key in keys] == [None, b"xxx"]
    cache.manual.evict(STORE, "b")
    assert cache.remembered(keys[1]) is None
    assert cache.stats().memory.entries == 0
