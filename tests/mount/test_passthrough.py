"""Passthrough is used where it works, and `status` says why it is not where it does not."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MNT_DETACH, MountedTree

_libc = ctypes.CDLL(None, use_errno=True)

WITHOUT = """
import sys
from fsdriver.fuse_mount import session
session.WANTED &= ~session.InitFlag.PASSTHROUGH
from fsdriver.cli import main
sys.exit(main(sys.argv[1:]))
"""


def read_and_write(tree: MountedTree) -> dict[str, int]:
    """Write a file and read it; which requests the daemon got for it."""
    before = tree.status()["requests"]
    path = tree.root / "f"
    path.write_bytes(b"x" * 3_000_000)
    tree.command("sync", str(path))
    assert path.read_bytes() == b"x" * 3_000_000
    with open(path, "r+b") as file:
        file.write(b"y")
    assert path.read_bytes() == b"y" + b"x" * 2_999_999
    after = tree.status()["requests"]
    return {name: after.get(name, 0) - before.get(name, 0) for name in ("READ", "WRITE")}


@pytest.fixture
def needs_passthrough(trees) -> None:
    tree = trees().mount()
    found = tree.status()["passthrough"]
    tree.umount()
    if found != "on":
        pytest.skip(f"this kernel or container does not allow passthrough: {found}")


@pytest.fixture
def overlay(fuse, tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mounts overlayfs on directories of the test's own; a second one may lie on the first."""
    mounted: list[Path] = []

    def mount(name: str) -> Path:
        lower = mounted[-1] if mounted else tmp_path / "lower"
        upper, work, target = (tmp_path / f"{name}-{part}" for part in ("upper", "work", "merged"))
        for place in (lower, upper, work, target):
            place.mkdir(exist_ok=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        if _libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, options.encode()):
            pytest.skip(f"overlayfs cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        mounted.append(target)
        return target

    yield mount
    for target in reversed(mounted):
        assert _libc.umount2(os.fsencode(target), MNT_DETACH) == 0


def test_the_cache_may_lie_on_overlayfs(overlay, needs_passthrough, trees):
    cache = overlay("one") / "cache"
    tree = trees(None, {"FSDRIVER_CACHE_DIR": str(cache)}).mount()
    assert tree.status()["passthrough"] == "on"
    assert read_and_write(tree) == {"READ": 0, "WRITE": 0}
    assert tree.status()["passthrough_refused"] == 0
    tree.umount()
    assert any(path.is_file() for path in (cache / "objects").rglob("*"))


def test_overlayfs_on_overlayfs_is_refused_by_the_kernel_and_explained(overlay, needs_passthrough, trees):
    overlay("one")
    tree = trees(None, {"FSDRIVER_CACHE_DIR": str(overlay("two") / "cache")}).mount()
    assert "stacked" in tree.status()["passthrough"]
    moved = read_and_write(tree)
    assert moved["WRITE"]
    tree.umount()


def test_off_by_an_option(trees):
    tree = trees().mount("passthrough=off")
    assert tree.status()["passthrough"] == "off: switched off by an option"
    assert read_and_write(tree)["WRITE"]


@pytest.mark.parametrize("read_ahead", [0, 128, 4096])
def test_without_it_a_cached_file_is_read_from_the_disk(trees, read_ahead):
    tree = trees().mount(f"passthrough=off,read_ahead={read_ahead}")
    path, data = tree.root / "f", os.urandom(4_000_123)
    path.write_bytes(data)
    tree.command("sync", str(tree.root))
    assert path.read_bytes() == data
    before = tree.status()["requests"]["READ"]
    for file in (path, *(one for one in (tree.places / "cache" / "objects").rglob("*") if one.is_file())):
        with file.open("rb") as opened:
            os.fdatasync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with path.open("rb", buffering=0) as file:
        assert b"".join(iter(lambda: file.read(100_000), b"")) == data
        assert all(os.pread(file.fileno(), 5000, at) == data[at : at + 5000] for at in range(3_990_000, 0, -301_000))
    assert tree.status()["requests"]["READ"] > before


def test_a_kernel_that_does_not_offer_it(trees):
    tree = trees()
    subprocess.run(
        [sys.executable, "-c", WITHOUT, "mount", tree.url, str(tree.root)],
        env=tree.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert "does not offer it" in tree.status()["passthrough"]
    assert read_and_write(tree)["WRITE"]


def test_through_libfuse_there_is_none(libfuse, trees):
    tree = trees().mount("transport=libfuse")
    assert "libfuse" in tree.status()["passthrough"]
    assert read_and_write(tree)["WRITE"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EPERM, "CAP_SYS_ADMIN"), (errno.ELOOP, "stacked"), (errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))],
)
def test_refusals_are_explained(code, words):
    from fsdriver.fuse_mount.passthrough import refusal

    assert words in refusal(OSError(code, os.strerror(code)))
