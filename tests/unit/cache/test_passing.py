"""The question for a cached file and its answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.cache import DiskCache, LocalFile, ObjectKey, locks, passing
from fsdriver.cache.files import LentFile
from fsdriver.errors import Corrupt
from fsdriver.runtime import run
from tests.waiting import wait_for

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
KEYS = st.builds(ObjectKey, TEXT, TEXT, TEXT, st.integers(0, 1 << 62))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


@given(KEYS)
def test_a_question_is_understood(key: ObjectKey) -> None:
    assert passing.parse(passing.question(key)) == key


@given(st.binary(max_size=200) | KEYS.map(lambda key: passing.question(key)[1:]))
def test_anything_else_is_no_question(message: bytes) -> None:
    with pytest.raises(ValueError, match="question"):
        passing.parse(message)


def test_questions_are_bounded() -> None:
    with pytest.raises(ValueError, match="question"):
        passing.parse(passing.question(ObjectKey("s", "k" * passing.LONGEST, "v", 1)))


def test_an_open_file_is_handed_over(ends, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    passing.send(ends[0], LocalFile(os.open(tmp_path / "f", os.O_RDONLY)))
    file = passing.receive(ends[1], 7)
    assert file is not None
    assert file.read(0, 100) == b"content"
    assert not os.get_inheritable(file.descriptor)


def test_no_file_is_an_answer_too(ends) -> None:
    passing.send(ends[0], None)
    assert passing.receive(ends[1], 7) is None
    ends[0].close()
    assert passing.receive(ends[1], 7) is None


@pytest.mark.parametrize("place", ["f", "."])
def test_what_is_not_the_object_is_not_read(ends, tmp_path: Path, place: str) -> None:
    (tmp_path / "f").write_bytes(b"other content")
    passing.send(ends[0], LocalFile(os.open(tmp_path / place, os.O_RDONLY)))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Corrupt):
        passing.receive(ends[1], 7)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lent_file_is_read_like_a_sealed_one(cache: DiskCache, make_source, tmp_path: Path) -> None:
    source = make_source(100_000)
    (tmp_path / "f").write_bytes(source.data)
    file = LentFile(os.open(tmp_path / "f", os.O_RDONLY))
    with cache.lent(source.key, file) as reader:
        assert (reader.complete, reader.path) == (True, None)
        assert reader.read_now(10, 100_000) == source.data[10:]
        duplicate = reader.duplicate()
    assert duplicate is not None
    with open(duplicate, "rb") as own:
        assert own.read() == source.data
    assert not cache.contains(source.key)
    stats = cache.stats()
    assert (stats.borrowed, stats.open) == (1, 0)


@pytest.mark.parametrize("size", [5_000, 3 << 20])
def test_who_locks_a_lent_file_costs_one_fetch(cache: DiskCache, make_source, size: int) -> None:
    """flock(2) works on any descriptor: another user may take the exclusive lock, and keep it."""
    source = make_source(size)
    run(cache.fill(source.key, source.fetch)).close()
    apart = cache.apart(source.key)
    assert apart is not None
    wait_for(lambda: locks.exclude(apart.descriptor))  # once the fill has let the file go
    fetched = source.asked
    for _ in range(3):
        run(cache.fill(source.key, source.fetch)).close()
    with cache.reader(source.key, source.fetch) as reader:
        assert reader.read_now(0, size) == source.data
    assert source.asked - fetched == size
    assert apart.read(0, size) == source.data
    assert cache.stats().bytes == size


def test_a_lock_that_cannot_be_taken_back_leaves_the_file_to_its_readers(
    cache: DiskCache, make_source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(5_000)
    with run(cache.fill(source.key, source.fetch)) as reader:
        apart = cache.apart(source.key)
        assert apart is not None
        exclude, theirs = locks.exclude, apart.descriptor

        def lose(descriptor: int) -> bool:
            """The other one is faster, at the only moment it can be."""
            assert not exclude(descriptor)
            assert exclude(theirs)
            return False

        with monkeypatch.context() as patch:
            patch.setattr(locks, "exclude", lose)
            assert not cache.unseal(source.key, tmp_path / "t", reader=reader)
        del apart
        assert not cache.contains(source.key)
        assert reader.read_now(0, 5_000) == source.data


def test_a_file_apart_is_held_like_by_another_process(make_cache, make_source, tmp_path: Path) -> None:
    cache, source = make_cache(), make_source(5_000)
    file, path = cache.temporary()
    file.write(0, memoryview(source.data))
    del file
    assert cache.apart(source.key) is None
    cache.seal(source.key, path)
    apart = cache.apart(source.key)
    assert apart is not None
    assert not cache.unseal(source.key, tmp_path / "t")
    assert cache.manual.evict(source.key.store, source.key.key).open == 1
    del apart
    assert cache.unseal(source.key, tmp_path / "t")
