"""Files that are taken out of the cache: to be written to, or because they are damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cache import DiskCache, Evicted, ObjectKey
from fsdriver.cache.partial import Partial
from fsdriver.runtime import run

from .processes import line, program
from .test_disk import name, put, use

MIB = 1 << 20


def test_unseal_moves_the_file(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"abc")
    inode = (cache.objects / name("a", 3).relative).stat().st_ino
    target = cache.staging / "t"
    assert cache.unseal(name("a", 3), target)
    assert target.stat().st_ino == inode
    assert cache.open(name("a", 3)) is None
    assert cache.stats().entries == 0
    assert not cache.unseal(name("a", 3), target)


def test_unseal_under_our_own_reader(cache: DiskCache) -> None:
    put(cache, name("a", 3), b"abc")
    reader = cache.open(name("a", 3))
    assert reader is not None
    assert not cache.unseal(name("a", 3), cache.staging / "t"), "somebody has it open"
    assert cache.unseal(name("a", 3), cache.staging / "t", reader=reader)
    (cache.staging / "t").open("r+b").close()
    with (cache.staging / "t").open("r+b") as file:
        file.write(b"ABC")
    assert reader.read_now(0, 3) == b"ABC"
    assert cache.open(name("a", 3)) is None
    put(cache, name("a", 3), b"abc")
    assert not cache.unseal(name("a", 3), cache.staging / "u", reader=reader), "the reader's file is not the sealed one"
    reader.close()
    changed = ObjectKey("s3|test|bucket", "a", "v2", 3)
    assert cache.seal(changed, cache.staging / "t") is None
    use(cache, changed)


def test_unseal_counts_duplicates_and_other_processes(cache: DiskCache, tmp_path: Path) -> None:
    put(cache, name("a", 3), b"abc")
    reader = cache.open(name("a", 3))
    assert reader is not None
    descriptor = reader.duplicate()
    assert descriptor is not None
    assert not cache.unseal(name("a", 3), cache.staging / "t", reader=reader)
    os.close(descriptor)
    code = "reader = cache.open(ObjectKey('s3|test|bucket', 'a', 'v', 3)); ready(reader.read_now(0, 3).decode())"
    with program(code, tmp_path / "cache") as process:
        assert line(process) == "abc"
        assert not cache.unseal(name("a", 3), cache.staging / "t", reader=reader)
        assert cache.manual.clear() == Evicted(open=1)
    assert cache.unseal(name("a", 3), cache.staging / "t", reader=reader)
    reader.close()


def test_what_a_file_was_filled_with_does_not_hold_it(
    cache: DiskCache, make_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was not scheduled since it wrote the last bytes still refers to the partial file."""
    opened = cache.partials.open
    kept: list[Partial | None] = []

    def keep(key: ObjectKey) -> Partial | None:
        kept.append(opened(key))
        return kept[-1]

    monkeypatch.setattr(cache.partials, "open", keep)
    source = make_source(3 * MIB)
    with cache.reader(source.key, source.fetch) as reader:
        run(reader.wait_complete())
        assert kept
        assert cache.unseal(source.key, cache.staging / "t", reader=reader)


def test_a_file_that_others_took_away_is_shared_no_more(cache: DiskCache, make_source: Any) -> None:
    source = make_source(3 * MIB)
    path = cache.objects / source.key.place
    with cache.reader(source.key, source.fetch) as reader:
        run(reader.wait_complete())
        path.unlink()
        with cache.reader(source.key, source.fetch) as again:
            run(again.wait_complete())
            assert path.read_bytes() == source.data
        assert reader.read_now(0, 5) == source.data[:5]
    assert source.asked == 2 * source.key.size
