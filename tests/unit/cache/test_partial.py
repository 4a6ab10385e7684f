"""Objects of which only parts are here: kept over restarts, shared by processes, checked, counted and evicted."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fsdriver.cache import BLOCK, DiskCache, Evicted, ObjectKey, Reader, locks
from fsdriver.cache.blocks import GRAIN
from fsdriver.cache.partial import Partial, map_of, path_of
from fsdriver.runtime import run, spawn
from tests.waiting import wait_for

from .processes import line, program

MIB = 1 << 20

OTHER = """
import asyncio, os, random
from fsdriver.runtime import run
size, log = int(sys.argv[2]), os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
data = random.Random(7).randbytes(size)
key = ObjectKey('s3|test|bucket', 'k', 'v1', size)
async def fetch(start, end):
    os.write(log, f'{start} {end}\\n'.encode())
    await asyncio.sleep(0.002)
    return memoryview(data)[start:end]
"""
"""Of another process: as `Source`, and what it asks for goes to a file."""


def part(reader: Reader, start: int, size: int = BLOCK) -> bytes:
    return bytes(run(reader.read(start, size)))


def asked(log: Path) -> int:
    return sum(int(end) - int(start) for start, end in (text.split() for text in log.read_text().splitlines()))


def files(cache: DiskCache) -> list[str]:
    folder = cache.objects / ".partial"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def settled(cache: DiskCache, size: int) -> None:
    """What arrived last is written, and what is there is counted, by workers."""
    wait_for(lambda: cache.stats().bytes == size)


# -- restarts ---------------------------------------------------------------------------------------------------------


def test_what_was_fetched_is_kept_over_a_restart(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    source = make_source(40 * MIB + 77)
    first = make_cache()
    with first.reader(source.key, source.fetch) as reader:
        for start in (0, 5 * MIB, 40 * MIB):
            assert part(reader, start) == source.data[start : start + BLOCK]
    settled(first, source.asked)
    first.close()
    before = source.asked
    second = make_cache()
    assert second.stats().bytes == before
    with second.reader(source.key, source.fetch) as reader:
        for start in (0, 5 * MIB, 40 * MIB):
            assert part(reader, start) == source.data[start : start + BLOCK]
        assert source.asked == before
        assert part(reader, 5 * MIB - 1000, 2 * BLOCK) == source.data[5 * MIB - 1000 : 5 * MIB - 1000 + 2 * BLOCK]
        assert source.asked <= before + 2 * BLOCK
        run(reader.wait_complete())
        assert reader.path
        assert reader.path.read_bytes() == source.data
    assert source.asked == source.key.size, "no byte twice"
    assert files(second) == []
    assert second.stats().bytes == source.key.size


def test_a_reader_that_read_nothing_leaves_nothing(cache: DiskCache, make_source: Any) -> None:
    source = make_source(3 * MIB)
    source.failures = [OSError("down")]
    with cache.reader(source.key, source.fetch) as reader, pytest.raises(OSError, match="down"):
        part(reader, 0)
    wait_for(lambda: cache.stats().entries == 0)
    assert files(cache) == []


def test_the_index_is_rebuilt_with_partial_files(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    source = make_source(4 * MIB)
    cache = make_cache()
    with cache.reader(source.key, source.fetch) as reader:
        part(reader, MIB)
    settled(cache, source.asked)
    cache.close()
    for path in cache.directory.glob("index.db*"):
        path.unlink()
    again = make_cache()
    assert again.stats().bytes == BLOCK
    assert again.manual.evict(source.key.store, source.key.key) == Evicted(files=1, bytes=BLOCK)
    assert files(again) == []


def test_an_index_of_the_first_schema_is_brought_up_to_date(
    make_cache: Callable[..., DiskCache], make_source: Any
) -> None:
    source = make_source(1000)
    cache = make_cache()
    run(cache.fill(source.key, source.fetch)).close()
    cache.close()
    with sqlite3.connect(cache.directory / "index.db") as connection:
        connection.execute("DROP INDEX entries_suspect")
        connection.execute("DROP TABLE boot")
        for column in ("partial", "checksum", "sealed", "suspect"):
            connection.execute(f"ALTER TABLE entries DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    again = make_cache()
    assert again.stats().entries == 1
    big = make_source(2 * MIB, key="big")
    run(again.fill(big.key, big.fetch)).close()
    assert again.stats().bytes == 1000 + 2 * MIB


# -- several processes ------------------------------------------------------------------------------------------------


def test_processes_fetch_each_block_once(cache: DiskCache, tmp_path: Path) -> None:
    size, log = 48 * MIB + 5, tmp_path / "asked"
    code = (
        OTHER
        + """
reader = cache.reader(key, fetch)
sys.stdin.readline()
for start in range(0, size, 1 << 17):
    assert run(reader.read(start, 1 << 17)) == data[start:start + (1 << 17)], start
run(reader.wait_complete())
ready(Path(reader.path).stat().st_ino)
"""
    )
    with ExitStack() as stack:
        others = [stack.enter_context(program(code, cache.directory, size, log)) for _ in range(4)]
        for other in others:
            assert other.stdin
            other.stdin.write("go\n")
            other.stdin.flush()
        assert len({line(other) for other in others}) == 1, "one file for all"
    assert asked(log) <= 1.05 * size
    assert cache.stats().bytes == size
    assert files(cache) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_who_is_ended_or_stopped_while_he_fetches_holds_up_nobody(
    cache: DiskCache, make_source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.5 if end == signal.SIGSTOP else 60.0)
    source = make_source(6 * MIB)
    code = (
        OTHER
        + """
async def hang(start, end):
    if start:
        print('fetching', flush=True)
        await asyncio.sleep(3600)
    return await fetch(start, end)
reader = cache.reader(key, hang)
run(reader.read(0, 1 << 17))
while not reader.read_now(0, 10): pass
run(reader.read(1 << 20, 1 << 17))
"""
    )
    with program(code, cache.directory, source.key.size, tmp_path / "asked") as other:
        assert line(other) == "fetching"
        with cache.reader(source.key, source.fetch) as reader:
            assert part(reader, 0) == source.data[:BLOCK]
            assert source.asked == 0, "the other one has fetched that"
            other.send_signal(end)
            try:
                assert part(reader, MIB) == source.data[MIB : MIB + BLOCK]
                run(reader.wait_complete())
            finally:
                other.kill()
            assert reader.path
            assert reader.path.read_bytes() == source.data


def test_others_wait_for_who_fetches(cache: DiskCache, make_source: Any, tmp_path: Path) -> None:
    source = make_source(6 * MIB)
    code = (
        OTHER
        + """
async def slowly(start, end):
    print('fetching', flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return memoryview(data)[start:end]
reader = cache.reader(key, slowly)
run(reader.read(1 << 20, 1 << 17))
ready('read')
"""
    )
    with program(code, cache.directory, source.key.size, tmp_path / "asked") as other:
        assert line(other) == "fetching"
        with cache.reader(source.key, source.fetch) as reader:
            waiting = spawn(reader.read(MIB, BLOCK))
            assert part(reader, 3 * MIB) == source.data[3 * MIB : 3 * MIB + BLOCK]
            assert not waiting.done()
            assert other.stdin
            other.stdin.write("go\n")
            other.stdin.flush()
            assert waiting.result(30) == source.data[MIB : MIB + BLOCK]
            assert source.ranges == [(3 * MIB, 3 * MIB + BLOCK)]
        assert line(other) == "read"


def test_processes_fetch_small_objects_once(cache: DiskCache, tmp_path: Path) -> None:
    log = tmp_path / "asked"
    code = (
        OTHER
        + """
sys.stdin.readline()
for number in range(50):
    one = ObjectKey('s3|test|bucket', f'k{number}', 'v1', size)
    with cache.reader(one, fetch) as reader:
        assert run(reader.read(0, size)) == data
ready('done')
"""
    )
    with ExitStack() as stack:
        others = [stack.enter_context(program(code, cache.directory, 100_000, log)) for _ in range(4)]
        for other in others:
            assert other.stdin
            other.stdin.write("go\n")
            other.stdin.flush()
        assert {line(other) for other in others} == {"done"}
    wait_for(lambda: cache.stats().entries == 50)
    assert asked(log) <= 1.2 * 50 * 100_000


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_fetched_anew_and_counted(
    make_cache: Callable[..., DiskCache], make_source: Any
) -> None:
    source = make_source(8 * MIB)
    first = make_cache()
    with first.reader(source.key, source.fetch) as reader:
        part(reader, 0, 2 * MIB)
    settled(first, source.asked)
    first.close()
    path = path_of(first.objects, source.key.place)
    with path.open("r+b") as file:
        file.seek(MIB + 5)
        byte = file.read(1)
        file.seek(MIB + 5)
        file.write(bytes([byte[0] ^ 1]))
    second, before = make_cache(), source.asked
    with second.reader(source.key, source.fetch) as reader:
        assert part(reader, 0, 2 * MIB) == source.data[: 2 * MIB]
        assert source.asked - before == GRAIN
        run(reader.wait_complete())
        assert reader.path
        assert reader.path.read_bytes() == source.data
    assert second.stats().corrupt >= 1


@pytest.mark.parametrize("damage", ["no map", "no file", "map cut short", "file cut short", "another map", "nonsense"])
def test_files_that_do_not_belong_together_are_made_anew(
    make_cache: Callable[..., DiskCache], make_source: Any, damage: str
) -> None:
    source = make_source(4 * MIB)
    first = make_cache()
    with first.reader(source.key, source.fetch) as reader:
        part(reader, MIB)
    settled(first, source.asked)
    first.close()
    path = path_of(first.objects, source.key.place)
    match damage:
        case "no map":
            map_of(path).unlink()
        case "no file":
            path.unlink()
        case "map cut short":
            os.truncate(map_of(path), 100)
        case "file cut short":
            os.truncate(path, MIB)
        case "another map":
            map_of(path).write_bytes(b"othermap" + map_of(path).read_bytes()[8:])
        case "nonsense":
            path.write_bytes(b"x")
            map_of(path).write_bytes(b"y")
    cache = make_cache()
    with cache.reader(source.key, source.fetch) as reader:
        assert part(reader, MIB) == source.data[MIB : MIB + BLOCK]
        run(reader.wait_complete())
        assert reader.path
        assert reader.path.read_bytes() == source.data
    assert cache.stats().bytes == source.key.size


@pytest.mark.parametrize("of", ["map", "file"])
def test_a_file_cut_short_while_it_is_read_is_fetched_anew(
    make_cache: Callable[..., DiskCache], make_source: Any, of: str
) -> None:
    source = make_source(6 * MIB)
    first = make_cache()
    with first.reader(source.key, source.fetch) as reader:
        part(reader, 0, 4 * MIB)
    settled(first, 4 * MIB)
    first.close()
    path = path_of(first.objects, source.key.place)
    second = make_cache()
    with second.reader(source.key, source.fetch) as reader:
        assert part(reader, 0) == source.data[:BLOCK]
        os.truncate(map_of(path) if of == "map" else path, 70 if of == "map" else MIB)
        assert part(reader, 2 * MIB, MIB) == source.data[2 * MIB : 3 * MIB]
        run(reader.wait_complete())
        assert reader.read_now(0, 6 * MIB) == source.data


def test_a_disk_that_cannot_be_read_costs_a_fetch(
    make_cache: Callable[..., DiskCache], make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(6 * MIB)
    first = make_cache()
    with first.reader(source.key, source.fetch) as reader:
        part(reader, 0, 4 * MIB)
    settled(first, 4 * MIB)
    first.close()
    second = make_cache()

    def fails(*_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with second.reader(source.key, source.fetch) as reader:
        assert part(reader, 0) == source.data[:BLOCK]
        monkeypatch.setattr(Partial, "missing", fails)
        assert part(reader, MIB) == source.data[MIB : MIB + BLOCK]
        assert part(reader, 0) == source.data[:BLOCK]
    wait_for(lambda: second.stats().filling == 0)
    monkeypatch.undo()
    with second.reader(source.key, source.fetch) as reader:
        monkeypatch.setattr(Partial, "read", fails)
        assert part(reader, MIB, MIB) == source.data[MIB : 2 * MIB]
    assert second.stats().uncached == 2


def test_a_file_removed_while_it_is_filled_is_read_to_its_end(cache: DiskCache, make_source: Any) -> None:
    source = make_source(6 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        part(reader, 0)
        cache.discard(source.key)
        assert part(reader, 2 * MIB) == source.data[2 * MIB : 2 * MIB + BLOCK]
        other = make_source(6 * MIB)
        with DiskCache(cache.directory, size=1 << 30, min_free=0).reader(other.key, other.fetch) as second:
            part(second, 0)
            run(reader.wait_complete())
            assert reader.read_now(0, 6 * MIB) == source.data
            run(second.wait_complete())
            assert second.read_now(0, 6 * MIB) == source.data


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_partial_files_count_and_are_evicted_unless_open(
    make_cache: Callable[..., DiskCache], make_source: Any
) -> None:
    cache = make_cache(10 * MIB)
    old, new = make_source(8 * MIB, key="old"), make_source(8 * MIB, key="new")
    with cache.reader(old.key, old.fetch) as reader:
        part(reader, 0, 4 * MIB)
    settled(cache, 4 * MIB)
    with cache.reader(new.key, new.fetch) as reader:
        part(reader, 0, 4 * MIB)
        assert cache.stats().bytes <= 10 * MIB
        wait_for(lambda: len(files(cache)) == 2)  # the old one has gone
        third = make_source(8 * MIB, key="third")
        with cache.reader(third.key, third.fetch) as streaming:
            assert part(streaming, 0, 8 * MIB) == third.data
        assert cache.stats().bytes <= 10 * MIB
        run(reader.wait_complete())
        assert reader.path, "an open one stays"


def test_the_bound_holds_while_processes_fill(make_cache: Callable[..., DiskCache], tmp_path: Path) -> None:
    bound = 24 * MIB
    cache = make_cache(bound)
    code = """
import random
from fsdriver.runtime import run
cache.close()
cache = DiskCache(Path(sys.argv[1]), size=int(sys.argv[2]), min_free=0)
for number in range(6):
    size = (1 + (number + int(sys.argv[3])) % 5) << 20
    data = bytes([number]) * size
    async def fetch(start, end): return memoryview(data)[start:end]
    with cache.reader(ObjectKey('s3|test|bucket', f'{sys.argv[3]}/{number}', 'v1', size), fetch) as reader:
        for start in range(0, size, 1 << 18):
            assert run(reader.read(start, 1 << 18)) == data[start:start + (1 << 18)]
ready('done')
"""
    with ExitStack() as stack:
        others = [stack.enter_context(program(code, cache.directory, bound, number)) for number in range(4)]
        highest, running = 0, True
        while running:
            running = any(other.poll() is None and not _told(other) for other in others)
            highest = max(highest, cache.stats().bytes)
    assert highest <= bound
    on_disk = sum(path.stat().st_blocks * 512 for path in cache.objects.rglob("*") if path.is_file())
    assert on_disk <= 1.01 * bound


def test_large_caches_evict_ahead(make_cache: Callable[..., DiskCache]) -> None:
    """Sparse files: the bound counts their sizes."""
    cache = make_cache(4 << 30)
    for number in range(9):
        key = ObjectKey("s3|test|bucket", f"k{number}", "v", 500 * MIB)
        with (cache.staging / "sparse").open("wb") as file:
            file.truncate(key.size)
        cache.seal(key, cache.staging / "sparse")
    assert 3000 * MIB < cache.stats().bytes <= (4 << 30) - ((4 << 30) // 32 - 32 * MIB)


def test_the_number_of_files_is_bounded(make_cache: Callable[..., DiskCache], make_source: Any) -> None:
    cache = make_cache(entries=10)
    for number in range(30):
        source = make_source(1000 if number % 2 else 2 * MIB, key=f"k{number}")
        with cache.reader(source.key, source.fetch) as reader:
            assert part(reader, 0, 1000) == source.data[:1000]
    wait_for(lambda: cache.stats().filling == 0 and cache.stats().entries <= 10)
    assert cache.stats().evictions >= 15


def _told(process: Any) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0.01)[0])
