"""A mount and an fsspec filesystem of another process over one store: what one closes the other sees, whole and at once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, make_tree
from tests.mount.peer import Peer


@pytest.fixture(scope="module", params=["local-back", "libfuse-back", "s3-back", "s3-through", "s3_libfuse-back"])
def tree(request, module_trees) -> MountedTree:
    kind, write = request.param.split("-")
    # What the other process changed shows because it tells, not because the ttl has ended.
    return make_tree(kind, module_trees, request).mount(f"write={write}", "ttl=1h")


@pytest.fixture(scope="module")
def peer(tree) -> Iterator[Peer]:
    process = Peer(tree)
    yield process
    process.end()


@pytest.fixture
def work(tree, peer, request) -> Iterator[Path]:
    """An empty directory ``work`` that both know."""
    path = tree.root / "work"
    path.mkdir()
    assert peer("ls") == []
    yield path
    for name in os.listdir(path):
        (path / name).unlink()
    path.rmdir()


def version(number: int, size: int = 300_000) -> bytes:
    return bytes([number]) * size


def test_what_the_mount_closes_the_other_process_reads(work, peer):
    assert not peer("exists", "work/f")
    for number in range(1, 25):
        (work / "f").write_bytes(version(number, number * 10_007))
        assert peer("size", "work/f") == number * 10_007
        assert peer.cat("work/f") == version(number, number * 10_007)
    (work / "new").write_bytes(b"")
    assert peer("ls") == ["f", "new"]


def test_what_the_other_process_closes_the_mount_reads(work, peer):
    assert not (work / "f").exists()
    assert os.listdir(work) == []
    for number in range(1, 25):
        peer.write("work/f", version(number, number * 10_007))
        assert (work / "f").stat().st_size == number * 10_007
        assert (work / "f").read_bytes() == version(number, number * 10_007)
        assert os.listdir(work) == ["f"]
    peer.write("work/new", b"")
    assert sorted(os.listdir(work)) == ["f", "new"]


def test_both_write_in_turn(work, peer):
    for number in range(1, 20, 2):
        (work / "f").write_bytes(version(number))
        assert peer.cat("work/f") == version(number)
        peer.write("work/f", version(number + 1, 1000))
        assert (work / "f").read_bytes() == version(number + 1, 1000)
        with (work / "f").open("ab") as file:
            file.write(b"appended")
        assert peer.cat("work/f") == version(number + 1, 1000) + b"appended"


def test_names_that_go_and_move(work, peer):
    (work / "a").write_bytes(b"a")
    assert peer("ls") == ["a"]
    (work / "a").rename(work / "b")
    assert peer("ls") == ["b"]
    assert peer.cat("work/b") == b"a"
    with pytest.raises(FileNotFoundError):
        peer.cat("work/a")
    (work / "b").unlink()
    assert not peer("exists", "work/b")

    peer.write("work/c", b"c")
    assert (work / "c").read_bytes() == b"c"
    peer("mv", "work/c", "work/d")
    assert not (work / "c").exists()
    assert (work / "d").read_bytes() == b"c"
    peer("rm", "work/d")
    assert not (work / "d").exists()
    assert os.listdir(work) == []


@pytest.mark.parametrize("synced", [False, True])
def test_what_the_mount_is_writing_is_not_seen_before_its_close(work, peer, synced):
    (work / "f").write_bytes(version(1))
    assert peer.cat("work/f") == version(1)
    with (work / "f").open("wb", buffering=0) as file, (work / "new").open("wb", buffering=0) as new:
        for _ in range(6):
            file.write(version(2, 50_000))
            new.write(version(3, 50_000))
            if synced:
                os.fsync(file.fileno())
                os.fsync(new.fileno())
            assert peer.cat("work/f") == version(1)
            assert not peer("exists", "work/new")
    assert peer.cat("work/f") == version(2)
    assert peer.cat("work/new") == version(3)


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_what_the_other_process_is_writing_is_not_seen_before_its_close(work, peer, mode):
    peer.write("work/f", version(1))
    assert (work / "f").read_bytes() == version(1)
    peer("begin", "work/f", mode)
    for _ in range(6):
        peer.more("work/f", version(2, 50_000))
        assert (work / "f").read_bytes() == version(1)
        assert os.listdir(work) == ["f"]
    peer("end", "work/f")
    assert (work / "f").read_bytes() == (b"" if mode == "wb" else version(1)) + version(2)


WRITER = """
import sys
for number in range(1, 61):
    with open(sys.argv[1], "wb", buffering=0) as file:
        for _ in range(10):
            file.write(bytes([number]) * 30_000)
"""


def test_a_reader_beside_a_busy_writer_never_sees_half_a_file(work, peer):
    (work / "f").write_bytes(version(0))
    with subprocess.Popen([sys.executable, "-c", WRITER, work / "f"]) as writer:
        seen = []
        while writer.poll() is None:
            try:
                data = peer.cat("work/f")
            except OSError as error:
                # Each version was replaced before it was read: told, rather than a mixture of two handed out.
                if error.errno != errno.ESTALE:
                    raise
                continue
            assert len(data) == 300_000
            assert len(set(data)) == 1
            seen.append(data[0])
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert peer.cat("work/f") == version(60)


def test_a_directory_that_is_open_shows_what_the_other_face_makes(work, peer):
    (work / "old").touch()
    descriptor = os.open(work, os.O_RDONLY)
    try:
        assert os.listdir(descriptor) == os.listdir(descriptor) == ["old"]
        peer.write("work/new", b"x")
        assert sorted(os.listdir(descriptor)) == sorted(os.listdir(work)) == ["new", "old"]
    finally:
        os.close(descriptor)


def test_a_file_read_through_one_face_is_in_the_cache_of_the_other(work, peer, tree):
    """The bytes of an object come from the store once, whoever asks first."""
    (work / "f").write_bytes(version(9, 2_000_000))
    tree.command("sync", str(work))
    before = tree.status()["cache"]["fetched_bytes"]
    assert peer.cat("work/f") == version(9, 2_000_000)
    assert (work / "f").read_bytes() == version(9, 2_000_000)
    assert tree.status()["cache"]["fetched_bytes"] == before
