"""Small objects: fetched whole, by threads where that will do, and sealed many at a time."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fsdriver.cache import BLOCK, DiskCache, Reader, batches
from fsdriver.errors import NoSpace
from fsdriver.runtime import run, spawn
from fsdriver.threads import MOST

MIB = 1 << 20


def test_small_objects_come_in_one_request(cache: DiskCache, make_source: Any) -> None:
    source = make_source(MIB)
    with cache.reader(source.key, source.fetch) as reader:
        assert run(reader.read(5 * BLOCK, 10)) == source.data[5 * BLOCK : 5 * BLOCK + 10]
        assert source.ranges == [(0, MIB)]
        run(reader.wait_complete())
    assert source.ranges == [(0, MIB)]


def fetch_in_a_thread(cache: DiskCache, source: Any, fetch: Callable[[], memoryview | None]) -> tuple[Reader, bool]:
    """A reader after one attempt by a thread, and whether that was begun."""
    over = threading.Event()
    reader = cache.reader(source.key, source.fetch, fetch)
    begun = reader.fetch_now(over.set)
    assert not begun or over.wait(30)
    return reader, begun


def test_small_objects_are_fetched_by_threads(cache: DiskCache, make_source: Any) -> None:
    source = make_source(MIB - 5)
    reader, begun = fetch_in_a_thread(cache, source, lambda: memoryview(source.data))
    assert begun
    assert reader.read_now(5, 10) == source.data[5:15]
    assert not reader.fetch_now(lambda: None)
    again = cache.reader(source.key, source.fetch)
    assert run(again.read(0, MIB)) == source.data
    run(again.wait_complete())
    assert again.path is not None
    assert again.path.read_bytes() == source.data
    for one in (reader, again):
        assert one.read_now(0, MIB) == source.data
        one.close()
    assert source.ranges == []
    assert cache.contains(source.key)
    stats = cache.stats()
    assert (stats.entries, stats.filling, stats.open, stats.fetched_bytes) == (1, 0, 0, MIB - 5)


def test_a_small_file_that_cannot_be_opened_holds_up_no_other(
    cache: DiskCache, make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that seals small files outlives it, and so do its readers."""
    source, other = make_source(1000), make_source(1000, key="other")

    def refuse(_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    reader, begun = cache.reader(source.key, source.fetch, lambda: memoryview(source.data)), threading.Event()
    with reader:
        with monkeypatch.context() as patch:
            patch.setattr(cache._opened, "again", refuse)
            assert reader.fetch_now(begun.set)
            assert begun.wait(30)
            with pytest.raises(OSError, match="Too many open files"):
                run(reader.wait_complete(), 60)
        assert run(reader.read(0, 1000), 60) == source.data
    with cache.reader(other.key, other.fetch, lambda: memoryview(other.data)) as reader:
        assert reader.fetch_now(begun.clear)
        run(reader.wait_complete(), 60)
        assert reader.read_now(0, 1000) == other.data
    assert other.ranges == []


def test_what_a_thread_does_not_get_is_asked_for_again(cache: DiskCache, make_source: Any) -> None:
    source = make_source(MIB)
    reader, begun = fetch_in_a_thread(cache, source, lambda: None)
    assert begun
    assert reader.read_now(0, 10) is None
    assert run(reader.read(0, MIB)) == source.data
    reader.close()
    other, begun = fetch_in_a_thread(cache, make_source(MIB + 1, key="large"), lambda: memoryview(b""))
    assert not begun
    other.close()


def test_readers_wait_for_a_thread_that_fetches(cache: DiskCache, make_source: Any) -> None:
    source = make_source(MIB)
    begun, go_on = threading.Event(), threading.Event()

    def fetch() -> memoryview:
        begun.set()
        assert go_on.wait(30)
        return memoryview(source.data)

    with cache.reader(source.key, source.fetch, fetch) as reader, cache.reader(source.key, source.fetch) as other:
        assert reader.fetch_now(lambda: None)
        assert begun.wait(30)
        reads = [spawn(one.read(7, 100)) for one in (reader, other)]
        go_on.set()
        assert [bytes(read.result()) for read in reads] == [source.data[7:107]] * 2  # type: ignore[attr-defined]
    assert source.ranges == []


def test_no_more_threads_than_there_are(cache: DiskCache, make_source: Any) -> None:
    go_on = threading.Event()

    def fetch() -> None:
        assert go_on.wait(30)

    sources = [make_source(100, key=str(number)) for number in range(MOST + 1)]
    readers = [cache.reader(source.key, source.fetch, fetch) for source in sources]
    begun = [reader.fetch_now(lambda: None) for reader in readers]
    assert begun == [True] * MOST + [False]
    assert run(readers[-1].read(0, 100)) == sources[-1].data
    go_on.set()
    for source, reader in zip(sources, readers, strict=True):
        assert run(reader.read(0, 100)) == source.data
        reader.close()


def test_threads_begin_again_after_a_close(cache: DiskCache, make_source: Any) -> None:
    for key in ("a", "b"):
        source = make_source(1000, key=key)
        reader, begun = fetch_in_a_thread(cache, source, lambda source=source: memoryview(source.data))
        assert begun
        assert reader.read_now(0, 1000) == source.data
        reader.close()
        cache.close()
        assert cache.contains(source.key)


def test_a_small_object_without_a_disk_stays_readable(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    cache = make_cache(min_free=1 << 60)
    source = make_source(MIB)
    reader, _ = fetch_in_a_thread(cache, source, lambda: memoryview(source.data))
    with reader:
        assert reader.read_now(0, MIB) == source.data
        with pytest.raises(NoSpace):
            run(reader.wait_complete())
        assert run(reader.read(3, 10)) == source.data[3:13]
    assert not cache.contains(source.key)


def test_many_small_objects_are_sealed_together(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    """Also where they do not all find room."""
    cache = make_cache(size=10 * MIB)
    sources = [make_source(100_000, key=str(number), seed=number) for number in range(300)]
    for source in sources:
        reader, _ = fetch_in_a_thread(cache, source, lambda source=source: memoryview(source.data))
        assert bytes(reader.read_now(0, 100_000) or run(reader.read(0, 100_000))) == source.data
        reader.close()
    cache.close()
    stats = cache.stats()
    assert stats.bytes <= 10 * MIB
    assert stats.sealed == 300
    kept = [source for source in sources if cache.contains(source.key)]
    assert sum(source.key.size for source in kept) == stats.bytes > 9 * MIB
    for source in kept:
        with cache.reader(source.key, source.fetch) as reader:
            assert reader.read_now(0, 100_000) == source.data


def test_files_that_come_one_by_one_are_sealed_together_and_at_once_when_somebody_waits(
    cache: DiskCache, make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_GATHER", 3600.0)
    adopted = cache._adopter.adopt_many
    together: list[int] = []

    def adopt_many(written: Any) -> list[bool]:
        together.append(len(written))
        return adopted(written)

    monkeypatch.setattr(cache._adopter, "adopt_many", adopt_many)
    sources = [make_source(1000, key=f"k{number}") for number in range(5)]
    for source in sources:
        with cache.reader(source.key, source.fetch, lambda: memoryview(source.data)) as reader:  # noqa: B023
            reader.fetch_here()
            assert reader.read_now(0, 1000) == source.data
    assert not any(cache.contains(source.key) for source in sources)
    with cache.reader(sources[0].key, sources[0].fetch) as reader:
        run(reader.wait_complete(), 60)
    assert all(cache.contains(source.key) for source in sources)
    assert together == [5]
