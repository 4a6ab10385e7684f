"""Fills: what is fetched, when, and what failures do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdriver.cache import BLOCK, DiskCache, ObjectKey
from fsdriver.cache.blocks import GRAIN
from fsdriver.cache.eviction import Evictor
from fsdriver.errors import BackendError, Corrupt, NoSpace, Stale, Unreachable
from fsdriver.runtime import run, spawn
from tests.waiting import wait_for

MIB = 1 << 20


def test_sequential_reading_fetches_each_byte_once_and_seals(cache: DiskCache, make_source: Any) -> None:
    source = make_source(20 * MIB + 123)
    with cache.reader(source.key, source.fetch) as reader:
        data = b"".join(bytes(run(reader.read(start, BLOCK))) for start in range(0, reader.size, BLOCK))
        assert data == source.data
        run(reader.wait_complete())
        assert reader.complete
        assert reader.path
        assert reader.path.read_bytes() == source.data
        assert reader.read_now(5, 10) == source.data[5:15]
    assert source.asked == reader.size
    assert len(source.ranges) < 30
    assert cache.contains(source.key)
    again = cache.open(source.key)
    assert again is not None
    assert again.complete
    again.close()
    assert cache.stats().entries == 1


def test_random_reads_fetch_only_their_blocks(cache: DiskCache, make_source: Any) -> None:
    source = make_source(64 * MIB)
    reader = cache.reader(source.key, source.fetch)
    offsets = [(number * 37 % 512) * BLOCK for number in range(100)]
    for offset in offsets:
        assert run(reader.read(offset, BLOCK)) == source.data[offset : offset + BLOCK]
    assert source.asked <= 1.5 * len(offsets) * BLOCK
    reader.close()


def test_random_reads_that_begin_anywhere_fetch_little_more(cache: DiskCache, make_source: Any) -> None:
    source = make_source(64 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        offsets = [number * 37 % 127 * (MIB // 2) + number * 4096 for number in range(100)]
        for offset in offsets:
            assert run(reader.read(offset, BLOCK)) == source.data[offset : offset + BLOCK]
        assert source.asked <= 1.3 * len(offsets) * BLOCK
        assert run(reader.read(33 * MIB + 5, 10)) == source.data[33 * MIB + 5 : 33 * MIB + 15]


def test_short_reads_make_no_shorter_requests(cache: DiskCache, make_source: Any) -> None:
    source = make_source(4 * MIB + 10)
    with cache.reader(source.key, source.fetch) as reader:
        for offset in (3 * BLOCK + 7, 3 * BLOCK + 100_000, 4 * MIB + 2):
            assert run(reader.read(offset, 5)) == source.data[offset : offset + 5]
    assert source.ranges == [(3 * BLOCK, 4 * BLOCK), (4 * MIB, 4 * MIB + 10)]


def test_empty_object(cache: DiskCache, make_source: Any) -> None:
    source = make_source(0)
    with cache.reader(source.key, source.fetch) as reader:
        assert reader.complete
        assert run(reader.read(0, 10)) == b""
    assert cache.contains(source.key)
    assert source.ranges == []


def test_short_reads_only_at_the_end(cache: DiskCache, make_source: Any) -> None:
    source = make_source(300_000)
    with cache.reader(source.key, source.fetch) as reader:
        assert run(reader.read(299_990, 100)) == source.data[-10:]
        assert run(reader.read(300_000, 1)) == b""
        assert run(reader.read(400_000, 1)) == b""


def test_readers_share_a_fill_and_its_requests(cache: DiskCache, make_source: Any) -> None:
    source = make_source(4 * MIB)
    first, second = cache.reader(source.key, source.fetch), cache.reader(source.key, source.fetch)

    async def both() -> list[Any]:
        return await asyncio.gather(*(reader.read(0, 3 * MIB) for reader in (first, second) for _ in range(5)))

    assert all(part == source.data[: 3 * MIB] for part in run(_on_loop(both)))
    assert source.asked == 3 * MIB
    first.close()
    assert run(second.read(0, 10)) == source.data[:10]
    second.close()


def test_ranges_are_fetched_together(cache: DiskCache, make_source: Any) -> None:
    source = make_source(8 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        ranges = [(5 * MIB, 5 * MIB + 10), (0, 10), (10, 2 * BLOCK), (9 * MIB, 10 * MIB), (7, 7)]
        assert run(reader.read_ranges(ranges)) == [source.data[start:end] for start, end in ranges]
        assert sorted(source.ranges) == [(0, 2 * BLOCK), (5 * MIB, 5 * MIB + GRAIN)]


def test_one_failure_among_ranges(cache: DiskCache, make_source: Any) -> None:
    source = make_source(40 * MIB)
    ranges = [(start, start + MIB) for start in range(0, 40 * MIB, 8 * MIB)]
    error = Unreachable("no route", "k")
    with cache.reader(source.key, source.fetch) as reader:
        source.failures = [error]
        with pytest.raises(Unreachable):
            run(reader.read_ranges(ranges))
        source.failures = [error]
        found = run(reader.read_ranges([(start + MIB, end + MIB) for start, end in ranges], lenient=True))
        assert [one for one in found if isinstance(one, BaseException)] == [error]
        assert run(reader.read_ranges(ranges)) == [source.data[start:end] for start, end in ranges]


@pytest.mark.parametrize("error", [Stale("changed", "k"), Unreachable("no route", "k"), KeyError("bug")])
def test_a_failed_fetch_reaches_every_waiter_and_poisons_nothing(
    cache: DiskCache, make_source: Any, error: Exception
) -> None:
    source = make_source(4 * MIB)
    source.failures = [error]
    with cache.reader(source.key, source.fetch) as reader:

        async def both() -> list[Any]:
            return await asyncio.gather(reader.read(0, 10), reader.read(20, 10), return_exceptions=True)

        assert run(_on_loop(both)) == [error, error]
        assert run(reader.read(0, 10)) == source.data[:10]
        run(reader.wait_complete())
    assert cache.stats().failed_fetches == 1


def test_a_truncated_answer_is_an_error(cache: DiskCache, make_source: Any) -> None:
    source = make_source(2 * MIB)
    source.short = 1
    with cache.reader(source.key, source.fetch) as reader:
        with pytest.raises(Corrupt, match="131071 bytes"):
            run(reader.read(0, 10))
        with pytest.raises(Corrupt):
            run(reader.wait_complete())
        source.short = 0
        assert run(reader.read(0, 10)) == source.data[:10]


def test_failed_read_ahead_is_not_repeated_by_itself(cache: DiskCache, make_source: Any) -> None:
    source = make_source(32 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        run(reader.read(0, BLOCK))
        source.failures = [Unreachable("gone", "k") for _ in range(50)]
        with pytest.raises(Unreachable):
            run(reader.read(BLOCK, BLOCK))
        run(_settled())
        assert len(source.failures) > 40
        source.failures = []
        assert run(reader.read(BLOCK, BLOCK)) == source.data[BLOCK : 2 * BLOCK]


def test_cancelling_one_reader_leaves_the_request_to_the_others(cache: DiskCache, make_source: Any) -> None:
    source = make_source(4 * MIB)
    with cache.reader(source.key, source.fetch) as reader:

        async def scenario() -> Any:
            source.gate = asyncio.Event()
            first = asyncio.ensure_future(reader.read(0, 10))
            second = asyncio.ensure_future(reader.read(0, 20))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            source.gate.set()
            return await second

        assert run(_on_loop(scenario)) == source.data[:20]
        assert source.asked == BLOCK


def test_the_last_close_cancels_fetches_and_keeps_what_has_arrived(cache: DiskCache, make_source: Any) -> None:
    source = make_source(4 * MIB)
    reader = cache.reader(source.key, source.fetch)
    run(reader.read(0, 10))

    async def scenario() -> None:
        source.gate = asyncio.Event()
        waiting = asyncio.ensure_future(reader.read(2 * MIB, 10))
        await asyncio.sleep(0)
        reader.close()
        with pytest.raises(OSError, match="closed"):
            await waiting

    run(_on_loop(scenario))
    wait_for(lambda: cache.stats().bytes == BLOCK)
    assert cache.stats().filling == 0
    assert cache.stats().buffers == 0
    assert cache.stats().fetched_bytes == BLOCK
    with pytest.raises(ValueError, match="closed"):
        reader.read_now(0, 1)


def test_closing_right_after_the_last_byte_still_seals(cache: DiskCache, make_source: Any) -> None:
    for size in (10, 3 * MIB, 20 * MIB):
        source = make_source(size, key=str(size))
        with cache.reader(source.key, source.fetch) as reader:
            assert run(reader.read(0, size)) == source.data
        with cache.reader(source.key, source.fetch) as reader:
            run(reader.wait_complete())
        assert cache.contains(source.key)
        assert source.asked == size


def test_what_is_sealed_while_a_reader_looks_for_it_is_not_fetched_again(
    cache: DiskCache, make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, find = make_source(1000), cache._opened.find

    def find_too_early(key: ObjectKey) -> None:
        assert find(key) is None
        monkeypatch.undo()
        run(cache.fill(key, source.fetch)).close()

    monkeypatch.setattr(cache._opened, "find", find_too_early)
    with cache.reader(source.key, source.fetch) as reader:
        assert run(reader.read(0, 1000)) == source.data
    assert source.asked == 1000


def test_a_reader_outlives_its_cache(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    cache = make_cache()
    source = make_source(4 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        run(reader.read(0, MIB))
        cache.close()
        run(_settled())
        assert run(reader.read(0, 4 * MIB)) == source.data


def test_a_fill_without_readers_that_fails_is_dropped(cache: DiskCache, make_source: Any) -> None:
    source = make_source(4 * MIB)
    reader = cache.reader(source.key, source.fetch)

    async def scenario() -> None:
        source.gate = asyncio.Event()
        source.failures = [Unreachable("gone", "k")]
        waiting = asyncio.ensure_future(reader.read(0, 4 * MIB))
        await asyncio.sleep(0)
        reader.close()
        source.gate.set()
        with pytest.raises(BackendError, match="closed"):
            await waiting

    run(_on_loop(scenario))
    run(_settled())
    assert cache.stats().filling == 0
    assert not [path for path in (cache.objects / ".fills").rglob("*") if path.is_file() and path.name != ".lock"]


def test_objects_over_the_bound_stream_through(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    cache = make_cache(8 * MIB)
    source = make_source(80 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        data = b"".join(bytes(run(reader.read(start, BLOCK))) for start in range(0, reader.size, BLOCK))
        assert data == source.data
        assert source.asked <= 1.1 * reader.size
        assert not reader.complete
        assert cache.stats().buffers <= 96 * MIB
        with pytest.raises(NoSpace):
            run(reader.wait_complete())
        assert run(reader.read(3, 70 * MIB)) == source.data[3 : 3 + 70 * MIB]
    assert cache.stats().uncached == 1
    assert cache.stats().bytes == 0


def test_a_full_disk_degrades_to_uncached_reading(
    cache: DiskCache, make_source: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = threading.Event()

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        written.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    sources = [make_source(10 * MIB, key=key) for key in ("a", "b")]
    readers = [cache.reader(source.key, source.fetch) for source in sources]
    assert run(readers[0].read(0, MIB)) == sources[0].data[:MIB]
    monkeypatch.setattr("os.pwrite", full)
    with caplog.at_level(logging.WARNING, "fsdriver.cache"):
        for source, reader in zip(sources, readers, strict=True):
            parts = [bytes(run(reader.read(start, BLOCK))) for start in range(0, reader.size, BLOCK)]
            assert b"".join(parts) == source.data
            reader.close()
    assert written.is_set()
    assert [record for record in caplog.records if "cannot be written" in record.message][1:] == []
    assert cache.stats().uncached == 2


def test_free_space_is_kept(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    cache = make_cache(min_free=1 << 60)
    source = make_source(3 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        assert run(reader.read(0, 3 * MIB)) == source.data
        with pytest.raises(NoSpace):
            run(reader.wait_complete())


def test_free_space_is_kept_by_fills_that_write_at_once(
    make_cache: Callable[..., DiskCache], make_source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes (here: two caches of one directory) with two fills each, and space for one request."""
    space = 9 * MIB
    look = threading.Barrier(4)

    def free(_: Evictor) -> int:
        used = 0
        for path in (tmp_path / "cache" / "objects").rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                used += path.stat().st_blocks * 512
        with contextlib.suppress(threading.BrokenBarrierError):
            look.wait(0.05)  # who looks before taking meets the others here
        return space - used

    monkeypatch.setattr(Evictor, "free", free)
    caches = [make_cache(), make_cache()]
    sources = [make_source(8 * MIB, key=name) for name in "abcd"]
    readers = [caches[number % 2].reader(source.key, source.fetch) for number, source in enumerate(sources)]
    reads = [spawn(reader.read(0, reader.size)) for reader in readers]
    for source, read in zip(sources, reads, strict=True):
        assert read.result() == source.data  # type: ignore[attr-defined]
    for reader in readers:
        with contextlib.suppress(NoSpace):
            run(reader.wait_complete())
    assert sum(reader.complete for reader in readers) == 1
    assert free(None) >= 0  # type: ignore[arg-type]
    for reader in readers:
        reader.close()


def test_a_cache_directory_removed_while_filling(cache: DiskCache, make_source: Any, tmp_path: Path) -> None:
    import shutil

    source = make_source(4 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        run(reader.read(0, 10))
        while (tmp_path / "cache").exists():  # something may just be written there
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        run(reader.wait_complete())
        assert reader.read_now(0, reader.size) == source.data
        assert reader.path is None
    with run(cache.fill(source.key, source.fetch)) as reader:
        assert reader.path is not None
    assert cache.contains(source.key)


def test_threads_read_one_fill(cache: DiskCache, make_source: Any) -> None:
    source = make_source(16 * MIB)
    wrong: list[int] = []

    def work(step: int) -> None:
        with cache.reader(source.key, source.fetch) as reader:
            for number in range(128):
                offset = number * step % 128 * BLOCK + 17
                if bytes(run(reader.read(offset, 5000))) != source.data[offset : offset + 5000]:
                    wrong.append(offset)

    with cache.reader(source.key, source.fetch):
        threads = [threading.Thread(target=work, args=(step,)) for step in (1, 3, 5, 127)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert source.asked == 16 * MIB


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5 * MIB), st.integers(0, 2 * MIB)), max_size=12), st.booleans())
def test_any_reads_give_the_objects_bytes(
    cache: DiskCache, make_source: Any, reads: list[tuple[int, int]], together: bool
) -> None:
    source = make_source(4 * MIB + 77, version=repr((reads, together)))
    with cache.reader(source.key, source.fetch) as reader:
        expected = [source.data[offset : offset + size] for offset, size in reads]
        if together:
            assert run(reader.read_ranges([(offset, offset + size) for offset, size in reads])) == expected
        else:
            assert [run(reader.read(offset, size)) for offset, size in reads] == expected
    assert source.asked <= reader.size


async def _on_loop(body: Callable[[], Any]) -> Any:
    from fsdriver.runtime import on_loop

    await on_loop()
    return await body()


async def _settled() -> None:
    """All tasks that are ready have run."""

    async def body() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    await _on_loop(body)


def test_spawned_reads_need_no_waiting_thread(cache: DiskCache, make_source: Any) -> None:
    source = make_source(2 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        futures = [spawn(reader.read(offset, 10)) for offset in range(0, 2 * MIB, BLOCK)]
        assert (
            [future.result() for future in futures]
            == [  # type: ignore[attr-defined]
                source.data[offset : offset + 10] for offset in range(0, 2 * MIB, BLOCK)
            ]
        )


def test_without_a_descriptor_a_whole_file_is_refused_as_such(
    cache: DiskCache, make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(5000)
    failing = OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def no_descriptor(*_: object) -> NoReturn:
        raise failing

    monkeypatch.setattr(cache._scratch, "create", no_descriptor)
    with cache.reader(source.key, source.fetch) as reader:
        assert bytes(run(reader.read(0, 5000))) == source.data
        with pytest.raises(OSError, match="open files") as caught:
            run(reader.wait_complete())
    assert caught.value.errno == errno.EMFILE
