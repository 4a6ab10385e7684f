"""Who has a file open reads it to the end, though its bytes are on the store only and this mount removes or replaces them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, fails_with, make_tree, wait_for
from tests.mount.foreign import Foreign

MIB = 1 << 20
SIZES = {"small": 5000, "large": 24 * MIB}
CHANGES: dict[str, Callable[[Path], object]] = {}


def change(make: Callable[[Path], object]) -> Callable[[Path], object]:
    CHANGES[make.__name__] = make
    return make


@change
def removed(root: Path) -> None:
    (root / "f").unlink()


@change
def replaced(root: Path) -> None:
    (root / "new").write_bytes(b"new")
    (root / "new").rename(root / "f")


@change
def renamed(root: Path) -> None:
    (root / "f").rename(root / "g")


@change
def renamed_and_removed_at_once(root: Path) -> None:
    (root / "f").rename(root / "g")
    (root / "g").unlink()


@change
def removed_with_its_directory(root: Path) -> None:
    (root / "f").rename(root / "d" / "f")
    (root / "d").rename(root / "e")
    (root / "e" / "f").unlink()
    (root / "e").rmdir()


@change
def linked_and_removed(root: Path) -> None:
    os.link(root / "f", root / "g")
    (root / "f").unlink()
    (root / "g").unlink()


@pytest.fixture(params=["local", "daemon", "libfuse", "s3"])
def tree(request, trees: TreeMaker) -> MountedTree:
    """Not yet mounted."""
    return make_tree(request.param, trees, request)


def whole(descriptor: int, size: int) -> bytes:
    return b"".join(os.pread(descriptor, MIB, offset) for offset in range(0, size, MIB))


@pytest.mark.parametrize("write", ["back", "through"])
def test_cold_files_are_kept_for_their_readers(tree: MountedTree, foreign: Foreign, write: str) -> None:
    """Every change of every size, each in a directory of its own of one mount."""
    cases = {f"{name} {size}": (make, os.urandom(SIZES[size])) for name, make in CHANGES.items() for size in SIZES}
    for case, (_, data) in cases.items():
        foreign.put(f"{case}/f", data)
        foreign.put(f"{case}/d/other", b"")
    tree.mount(f"write={write}")
    with contextlib.ExitStack() as stack:
        readers: dict[str, tuple[int, int]] = {}
        for case, (make, data) in cases.items():
            root = tree.root / case
            unread, begun = (os.open(root / "f", os.O_RDONLY) for _ in range(2))
            stack.callback(os.close, unread)
            stack.callback(os.close, begun)
            if len(data) > MIB:
                assert os.pread(begun, 4096, 0) == data[:4096]
            (root / "d" / "other").unlink()
            make(root)
            readers[case] = unread, begun
        tree.command("sync", str(tree.root), timeout=170)
        left = foreign.keys()
        for case, (_, data) in cases.items():
            unread, begun = readers[case]
            assert f"{case}/f" not in left or foreign.get(f"{case}/f") == b"new", case
            assert whole(begun, len(data)) == data, case
            assert whole(unread, len(data)) == data, case
            if "transport=libfuse" not in tree.options:
                assert os.fstat(begun).st_size == len(data), case
    tree.umount()


def test_a_file_that_was_renamed_is_removed_later(tree: MountedTree, foreign: Foreign) -> None:
    data = os.urandom(24 * MIB)
    foreign.put("f", data)
    tree.mount()
    reader = os.open(tree.root / "f", os.O_RDONLY)
    try:
        assert os.pread(reader, 10, 0) == data[:10]
        for old, new in (("f", "g"), ("g", "h")):
            (tree.root / old).rename(tree.root / new)
            tree.command("sync", str(tree.root))
        assert foreign.keys() == ["h"]
        (tree.root / "h").unlink()
        tree.command("sync", str(tree.root))
        assert foreign.keys() == []
        assert whole(reader, len(data)) == data
    finally:
        os.close(reader)


@pytest.mark.parametrize("write", ["back", "through"])
def test_removing_a_very_large_file_waits_for_its_last_reader(tree: MountedTree, foreign: Foreign, write: str) -> None:
    """Nobody else waits: neither who removes it, nor who asks that the store has everything."""
    data = os.urandom(MIB) * 80
    foreign.put("d/f", data)
    foreign.put("other", b"x")
    tree.mount(f"write={write}")
    reader = os.open(tree.root / "d" / "f", os.O_RDONLY)
    try:
        assert os.pread(reader, 10, 0) == data[:10]
        (tree.root / "d" / "f").unlink()
        (tree.root / "d").rmdir()
        (tree.root / "other").unlink()
        tree.command("sync", str(tree.root))
        assert os.listdir(tree.root) == []
        assert foreign.keys() == ["d/f"]
        assert whole(reader, len(data)) == data
    finally:
        os.close(reader)
    wait_for(lambda: not foreign.keys())
    tree.umount()


@contextlib.contextmanager
def open_larger_than_the_cache(tree: MountedTree, foreign: Foreign) -> Iterator[tuple[int, bytes]]:
    """Descriptor and bytes of ``f``, read in part."""
    data = os.urandom(24 * MIB)
    foreign.put("f", data)
    (tree.places / "config.toml").write_text('[cache]\nsize = "8MiB"\n')
    tree.mount()
    reader = os.open(tree.root / "f", os.O_RDONLY)
    try:
        assert os.pread(reader, 10, 0) == data[:10]
        yield reader, data
    finally:
        os.close(reader)


def test_a_file_the_cache_cannot_hold_is_removed_after_its_last_close(tree: MountedTree, foreign: Foreign) -> None:
    with open_larger_than_the_cache(tree, foreign) as (reader, data):
        (tree.root / "f").unlink()
        tree.command("sync", str(tree.root))
        assert whole(reader, len(data)) == data
    wait_for(lambda: not foreign.keys())


def test_a_file_the_cache_cannot_hold_is_replaced(tree: MountedTree, foreign: Foreign) -> None:
    """What was written goes first; reading on says ESTALE, and it is counted."""
    with open_larger_than_the_cache(tree, foreign) as (reader, data):
        replaced(tree.root)
        tree.command("sync", str(tree.root))
        assert foreign.get("f") == b"new"
        with fails_with(errno.ESTALE):
            whole(reader, len(data))
    assert tree.status()["cut_readers"] == 1
    assert (tree.root / "f").read_bytes() == b"new"
