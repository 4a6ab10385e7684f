"""Small files that the fsspec face serves from memory: never older than from disk, and as good as a file."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsdriver.cache.tier import MemoryStats
from fsdriver.engine import open_engine
from fsdriver.filesystem import TierFileSystem
from fsdriver.testing.servers import S3Service
from tests.fixtures_tier import ROUTE

PATH = f"{ROUTE}/d/small"
DATA = bytes(range(256)) * 40


def memory(fs: TierFileSystem) -> MemoryStats:
    stats: MemoryStats = fs._namespace.engine.cache.stats().memory
    return stats


@pytest.fixture
def warm(tier_s3: TierFileSystem) -> TierFileSystem:
    """`PATH` is in memory."""
    tier_s3.pipe_file(PATH, DATA)
    assert tier_s3.cat_file(PATH) == DATA
    assert memory(tier_s3).entries == 1
    return tier_s3


def test_warm_reads_of_any_kind_come_from_memory(warm: TierFileSystem) -> None:
    hits = memory(warm).hits
    assert warm.cat_file(PATH) is warm.cat_file(PATH), "nothing is copied"
    assert warm.cat_file(PATH, 10, 20) == DATA[10:20]
    assert warm.cat_file(PATH, -10) == DATA[-10:]
    assert warm.cat_file(PATH, 5, -5) == DATA[5:-5]
    assert warm.cat_file(PATH, len(DATA) + 5, len(DATA) + 9) == b""
    assert warm.cat([PATH]) == {PATH: DATA}
    assert warm.cat_ranges([PATH, PATH, PATH], [0, 7, -3], [3, None, None]) == [DATA[:3], DATA[7:], DATA[-3:]]
    assert warm.head(PATH, 5) == DATA[:5]
    with warm.open(PATH) as file:
        assert file.read() == DATA
    assert memory(warm).hits == hits + 10
    assert memory(warm).offered == 1


def test_a_file_in_memory_is_a_file(warm: TierFileSystem) -> None:
    with warm.open(PATH) as file:
        assert (file.size, file.mode, file.readable(), file.writable(), file.seekable()) == (
            len(DATA), "rb", True, False, True,
        )  # fmt: skip
        assert file.read(3) == DATA[:3]
        assert file.tell() == 3
        assert file.seek(-4, os.SEEK_END) == len(DATA) - 4
        assert file.read() == DATA[-4:]
        assert file.seek(100) == 100
        buffer = bytearray(50)
        assert file.readinto(buffer) == 50
        assert buffer == DATA[100:150]
        assert os.pread(file.fileno(), 5, 7) == DATA[7:12]
        assert os.fstat(file.fileno()).st_size == len(DATA)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            assert mapping[:] == DATA
        file.seek(16)
        assert np.fromfile(file, dtype="u1", count=4).tolist() == list(DATA[16:20])
        file.seek(30)
        again = pickle.loads(pickle.dumps(file))
        assert again.read(4) == DATA[30:34]
        again.close()
        descriptor = file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with warm.open(PATH, "r", encoding="latin-1") as text:
        assert text.read(4) == DATA[:4].decode("latin-1")


def test_our_own_changes_show_at_once(warm: TierFileSystem) -> None:
    with warm.open(PATH) as old:
        warm.pipe_file(PATH, b"new")
        assert warm.cat_file(PATH) == b"new"
        assert old.read() == DATA, "an open file keeps its version"
    warm.mv(PATH, f"{PATH}2")
    assert warm.cat_file(f"{PATH}2") == b"new"
    with pytest.raises(FileNotFoundError):
        warm.cat_file(PATH)
    warm.rm_file(f"{PATH}2")
    with pytest.raises(FileNotFoundError):
        warm.open(f"{PATH}2")


def test_another_process_s_changes_show_at_once(warm: TierFileSystem) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        pool.apply(_overwrite, (dict(warm.storage_options), PATH, b"from another process"))
    assert warm.cat_file(PATH) == b"from another process"
    with warm.open(PATH) as file:
        assert file.read() == b"from another process"


def _overwrite(options: dict[str, Any], path: str, data: bytes) -> None:
    TierFileSystem(**options).pipe_file(path, data)


def test_foreign_changes_show_after_the_time_to_live(
    s3_config: dict[str, Any], s3_server: S3Service, s3_bucket: str
) -> None:
    fs = TierFileSystem(config=s3_config, ttl=0.2)
    fs.pipe_file(PATH, DATA)
    assert fs.cat_file(PATH) == DATA
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/d/small", Body=b"foreign")
    threading.Event().wait(0.3)
    assert fs.cat_file(PATH) == b"foreign"
    with fs.open(PATH) as file:
        assert file.read() == b"foreign"


def test_a_forked_child_reads_what_it_should(warm: TierFileSystem) -> None:
    child = os.fork()
    if child == 0:
        right = warm.cat_file(PATH) == DATA and warm.open(PATH).read() == DATA
        stats = memory(warm)
        os._exit(0 if right and (stats.entries, stats.offered) == (1, 1) else 1)
    assert os.waitpid(child, 0)[1] == 0, "the child goes on with what its parent had in memory"
    assert warm.cat_file(PATH) == DATA


def test_memory_can_be_turned_off(s3_config: dict[str, Any]) -> None:
    fs = TierFileSystem(config={**s3_config, "cache": {"memory": 0}})
    fs.pipe_file(PATH, DATA)
    for _ in range(3):
        assert fs.cat_file(PATH) == DATA
        with fs.open(PATH) as file:
            assert file.read() == DATA
    assert memory(fs).entries == memory(fs).hits == 0


def test_the_bound_is_of_the_process(s3_config: dict[str, Any]) -> None:
    fs = TierFileSystem(config={**s3_config, "cache": {"memory": "1 MiB"}})
    for number in range(40):
        fs.pipe_file(f"{ROUTE}/{number}", bytes([number]) * 50_000)
    for _ in range(2):
        for number in range(40):
            assert fs.cat_file(f"{ROUTE}/{number}") == bytes([number]) * 50_000
    stats = memory(fs)
    assert 0 < stats.entries < 40
    assert stats.bytes <= stats.size == 1 << 20


def test_a_daemon_keeps_nothing(tier_places: Path) -> None:
    assert open_engine(daemon=True, write="back").cache.stats().memory.size == 0
