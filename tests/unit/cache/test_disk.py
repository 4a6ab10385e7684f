"""The disk cache: bounds, eviction, pins, sealing, un-sealing, restarts and other processes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cache import DiskCache, Evicted, ObjectKey, Reader
from fsdriver.errors import ConfigError, Corrupt
from fsdriver.runtime import run

from .processes import line, program

KIB = 1 << 10
STORE = "s3|test|bucket"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def name(key: str, size: int = 100 * KIB) -> ObjectKey:
    return ObjectKey(STORE, key, "v", size)


def put(cache: DiskCache, key: ObjectKey, content: bytes | None = None) -> None:
    path = cache.staging / "incoming"
    path.write_bytes(content if content is not None else b"x" * key.size)
    assert cache.seal(key, path) is None
    assert not path.exists()


async def _abc(start: int, end: int) -> memoryview:
    return memoryview(b"abc")[start:end]


def use(cache: DiskCache, key: ObjectKey) -> None:
    reader = cache.open(key)
    assert reader is not None
    reader.close()


def test_places_are_the_contract() -> None:
    import hashlib

    def part(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    key = ObjectKey("s3|http://h|b", "dir/k", "etag", 5)
    assert key.relative == Path(part("s3|http://h|b"), part("dir/k"), part("etag\x005"))


def test_modes_are_private(cache: DiskCache, tmp_path: Path) -> None:
    run(cache.fill(name("a", 3), _abc)).close()
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_byte_bound_evicts_the_least_recently_used(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(300 * KIB, clock=Clock())
    for key in "abc":
        put(cache, name(key))
    use(cache, name("a"))
    put(cache, name("d"))
    assert [key for key in "abcd" if cache.contains(name(key))] == ["a", "c", "d"]
    stats = cache.stats()
    assert (stats.bytes, stats.entries, stats.evictions) == (300 * KIB, 3, 1)


def test_a_reader_made_for_later_opens_its_file_when_it_is_read(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"abc")
    reader = cache.later(name("a", 3), _abc)
    assert cache.stats().open == 0
    assert reader.read_now(1, 5) == b"bc"
    assert cache.stats().open == 1
    reader.close()
    assert cache.stats().open == 0
    with pytest.raises(ValueError, match="closed reader"):
        reader.read_now(0, 1)


def test_a_reader_made_for_later_fetches_what_was_evicted(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"abc")
    with cache.later(name("a", 3), _abc) as reader:
        cache.discard(name("a", 3))
        assert reader.read_now(0, 3) is None
        assert bytes(run(reader.read(0, 3))) == b"abc"


def test_a_reader_that_is_never_read_is_a_use(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(300 * KIB, clock=Clock())
    for key in "abc":
        put(cache, name(key))
    cache.later(name("a"), _abc).close()
    put(cache, name("d"))
    assert [key for key in "abcd" if cache.contains(name(key))] == ["a", "c", "d"]


def test_threads_attach_a_reader_once(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"abc")
    reader = cache.later(name("a", 3), _abc)
    together = threading.Barrier(8)

    def attach() -> None:
        together.wait(10)
        reader.attach()

    threads = [threading.Thread(target=attach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert cache.stats().open == 1
    reader.close()
    assert cache.stats().open == 0


def test_pinned_and_open_files_stay(make_cache: Callable[..., DiskCache]) -> None:
    cache = make_cache(300 * KIB, clock=Clock())
    cache.manual.pin(STORE, ["a"])
    for key in "abc":
        put(cache, name(key))
    with cache.open(name("b")) or pytest.fail("not there"):
        put(cache, name("d"))
        assert [key for key in "abcd" if cache.contains(name(key))] == ["a", "b", "d"]
        put(cache, name("huge", 250 * KIB))
        assert not cache.contains(name("huge", 250 * KIB))
        assert cache.stats().refused == 1
        assert cache.stats().bytes <= 300 * KIB
    cache.manual.unpin(STORE, ["a"])
    put(cache, name("huge", 250 * KIB))
    assert cache.contains(name("huge", 250 * KIB))
    assert not cache.contains(name("a"))


def test_the_bound_holds_under_concurrency(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    cache = make_cache(1000 * KIB)

    def work(number: int) -> None:
        for index in range(20):
            path = tmp_path / f"{number}-{index}"
            path.write_bytes(b"y" * 90 * KIB)
            cache.seal(name(f"{number}/{index}", 90 * KIB), path)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = list(cache.objects.glob("[0-9a-f]*/*/*"))
    stats = cache.stats()
    assert stats.entries == len(files) == 11
    assert stats.bytes == sum(path.stat().st_size for path in files) <= 1000 * KIB


def test_a_refused_file_can_still_be_read(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    cache = make_cache(10)
    path = tmp_path / "big"
    path.write_bytes(b"0123456789abc")
    reader = cache.seal(name("big", 13), path, keep_open=True)
    assert reader is not None
    assert reader.path is None
    assert reader.read_now(10, 5) == b"abc"
    assert not path.exists()
    reader.close()


def test_sealing_replaces_nothing(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"one")
    put(cache, name("a", 3), b"two")
    with cache.open(name("a", 3)) or pytest.fail("not there") as reader:
        assert reader.read_now(0, 3) == b"one"
    assert cache.stats().entries == 1


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_file_that_is_removed_while_it_is_sealed_counts_for_nothing(
    cache: DiskCache, many: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.staging / "incoming"
    path.write_bytes(b"abc")
    room = cache._adopter._make_room

    def removing(size: int, files: int) -> bool:
        path.unlink()
        return room(size, files)

    monkeypatch.setattr(cache._adopter, "_make_room", removing)
    if many:
        cache.seal_many([(name("a", 3), path)])
    else:
        with cache.seal(name("a", 3), path, keep_open=True) or pytest.fail("not open") as reader:
            assert reader.read_now(0, 3) == b"abc"
    assert (cache.stats().entries, cache.stats().bytes, caplog.text) == (0, 0, "")


def test_sealing_checks_the_size(cache: DiskCache, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"12")
    with pytest.raises(Corrupt, match="3 bytes"):
        cache.seal(name("a", 3), path)


def test_a_file_of_another_size_or_gone_is_a_miss(cache: DiskCache) -> None:
    put(cache, name("a", 3))
    path = cache.objects / name("a", 3).relative
    path.write_bytes(b"12")
    assert cache.open(name("a", 3)) is None
    path.unlink()
    assert cache.open(name("a", 3)) is None
    put(cache, name("a", 3), b"abc")
    with cache.open(name("a", 3)) or pytest.fail("not there") as reader:
        assert reader.read_now(0, 3) == b"abc"


def test_evict_by_store_and_prefix_and_clear(cache: DiskCache) -> None:
    other = ObjectKey("gcs|x|y", "a/1", "v", 10)
    for key in (name("a/1"), name("a/2"), name("b"), name("a%_"), other):
        put(cache, key)
    (cache.staging / "pending").write_bytes(b"mine")
    assert cache.manual.evict_below(STORE, "a/") == Evicted(files=2, bytes=200 * KIB)
    assert [cache.contains(key) for key in (name("a/1"), name("b"), name("a%_"), other)] == [False, True, True, True]
    assert cache.manual.evict_below(STORE) == Evicted(files=2, bytes=200 * KIB)
    assert cache.contains(other)
    assert cache.manual.clear() == Evicted(files=1, bytes=10)
    assert cache.stats().entries == cache.stats().bytes == 0
    assert (cache.staging / "pending").read_bytes() == b"mine"


def test_discard_keeps_descriptors(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"bad")
    with cache.open(name("a", 3)) or pytest.fail("not there") as reader:
        cache.discard(name("a", 3))
        assert cache.open(name("a", 3)) is None
        assert reader.read_now(0, 3) == b"bad"


# -- un-sealing ------------------------------------------------------------------------------------------------------


# -- restarts and other processes ------------------------------------------------------------------------------------


def test_files_in_use_by_another_process_are_not_evicted(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    cache = make_cache(300 * KIB, clock=Clock())
    for key in "abc":
        put(cache, name(key))
    with program(
        f"reader = cache.open(ObjectKey('s3|test|bucket', 'a', 'v', {100 * KIB})); ready()", tmp_path / "cache"
    ) as other:
        assert line(other) == "ready"
        put(cache, name("d"))
        assert [key for key in "abcd" if cache.contains(name(key))] == ["a", "c", "d"]


def test_a_cache_survives_a_restart(make_cache: Callable[..., DiskCache]) -> None:
    first = make_cache()
    put(first, name("a", 3), b"abc")
    first.manual.pin(STORE, ["a"])
    first.close()
    second = make_cache()
    with second.open(name("a", 3)) or pytest.fail("not there") as reader:
        assert reader.read_now(0, 3) == b"abc"
    assert second.stats().pinned == 1


def test_a_killed_process_leaves_no_temporary_file(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    code = """
(cache.staging / 'k').write_bytes(b'k')
cache.seal(ObjectKey('s3|test|bucket', 'kept', 'v', 1), cache.staging / 'k')
file, path = cache.temporary()
ready(path)
"""
    with program(code, tmp_path / "cache") as process:
        leftover = Path(line(process))
        assert leftover.exists()
        alive = make_cache()
        assert leftover.exists(), "its owner lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
        alive.close()
    cache = make_cache()
    assert not leftover.exists()
    assert cache.contains(name("kept", 1))
    assert cache.stats().entries == 1


def test_two_processes_fill_one_key(cache: DiskCache, make_source: Any, tmp_path: Path) -> None:
    source = make_source(3 << 20)
    code = """
import random
from fsdriver.runtime import run
data = random.Random(7).randbytes(3 << 20)
async def fetch(start, end): return memoryview(data)[start:end]
reader = run(cache.fill(ObjectKey('s3|test|bucket', 'k', 'v1', 3 << 20), fetch))
ready(reader.path)
"""
    mine = cache.reader(source.key, source.fetch)
    run(mine.read(0, 10))
    with program(code, tmp_path / "cache") as process:
        path = Path(line(process))
        inode = path.stat().st_ino
        run(mine.wait_complete())
        assert mine.path == path
        assert path.stat().st_ino == inode
        assert mine.read_now(0, 3 << 20) == source.data
    mine.close()
    assert cache.stats().entries == 1


def test_a_lost_index_is_rebuilt_from_the_files(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    cache = make_cache()
    put(cache, name("a"))
    for path in (tmp_path / "cache").glob("index.db*"):
        path.unlink()
    assert cache.stats().entries == 1, "noticed while in use"
    cache.close()
    (tmp_path / "cache" / "index.db").write_bytes(b"nonsense" * 1000)
    again = make_cache()
    assert again.stats().bytes == 100 * KIB
    use(again, name("a"))
    assert again.manual.evict_below(STORE) == Evicted(files=1, bytes=100 * KIB)


def test_a_removed_directory_begins_anew(cache: DiskCache, make_source: Any, tmp_path: Path) -> None:
    source = make_source(1000)
    run(cache.fill(source.key, source.fetch)).close()
    shutil.rmtree(tmp_path / "cache")
    assert cache.open(source.key) is None
    run(cache.fill(source.key, source.fetch)).close()
    assert cache.contains(source.key)
    assert cache.stats().entries == 1
    assert len(source.ranges) == 2


def test_a_newer_index_is_refused(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    make_cache().close()
    connection = sqlite3.connect(tmp_path / "cache" / "index.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="schema 99"):
        make_cache()


def test_an_unusable_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="FSDRIVER_CACHE_DIR"):
        DiskCache(tmp_path / "file" / "cache", size=1, min_free=0)


def test_a_forked_child_reads_and_fills(cache: DiskCache, make_source: Any) -> None:
    source = make_source(3 << 20)
    other = make_source(2 << 20, key="other")
    partial = cache.reader(source.key, source.fetch)
    run(partial.read(0, 10))
    put(cache, name("sealed", 3), b"abc")
    sealed = cache.open(name("sealed", 3))
    assert sealed is not None
    child = os.fork()
    if child == 0:
        code = 1
        try:
            good = sealed.read_now(0, 3) == b"abc"
            good = good and run(partial.read(1 << 20, 1 << 20), 30) == source.data[1 << 20 : 2 << 20]
            reader: Reader = run(cache.fill(other.key, other.fetch), 30)
            good = good and reader.read_now(0, other.key.size) == other.data
            good = good and not cache.unseal(name("sealed", 3), cache.staging / "t", reader=sealed)
            code = 0 if good else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.contains(other.key)
    assert run(partial.read(0, 3 << 20)) == source.data
    partial.close()
    sealed.close()
