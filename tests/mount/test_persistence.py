"""Everything POSIX is on the bucket: it survives unmounting with nothing kept here, and other hosts read the same."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, make_tree, wait_for

MIB = 1 << 20
BINARY = bytes(range(256))
ODD_NAMES = [
    b"\xff\xfe not utf-8", b"line\nbreak", b"back\\slash", b"%0A", b"100%", b"control \x01\x7f", b" blanks ",
    "na\u00efve \U0001f600".encode(), b"*?[]'\"<>|:;&", b"-n", b"~", b"x" * 255, "\u00e9".encode() * 127,
]  # fmt: skip


@pytest.fixture(params=["local-back", "local-through", "s3-back", "s3-through"])
def tree(request, trees: TreeMaker) -> MountedTree:
    """A tree of the test's own that keeps its way of writing over remounts."""
    kind, write = request.param.split("-")
    made = make_tree(kind, trees, request)
    made.options = (f"write={write}",)
    return made.mount()


def attributes(path: bytes) -> dict[str, Any]:
    """All that lstat(2), readlink(2), listxattr(2) and read(2) tell of one name."""
    status = os.lstat(path)
    found: dict[str, Any] = {
        "mode": status.st_mode, "owner": (status.st_uid, status.st_gid), "ino": status.st_ino,
        "times": (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns), "rdev": status.st_rdev,
    }  # fmt: skip
    if not stat.S_ISDIR(status.st_mode):
        found |= {"size": status.st_size, "links": status.st_nlink}
    if stat.S_ISLNK(status.st_mode):
        found["target"] = os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            found["bytes"] = file.read()
    names = os.listxattr(path, follow_symlinks=False)
    found["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return found


def seen(root: Path) -> dict[bytes, dict[str, Any]]:
    """Everything below a directory."""
    top = os.fsencode(root)
    found = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = attributes(path)
    return found


def differences(one: dict[bytes, dict[str, Any]], other: dict[bytes, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What two hosts see differently; short enough to read."""
    found: list[tuple[Any, ...]] = [(name, "is on one side only") for name in one.keys() ^ other.keys()]
    for name in one.keys() & other.keys():
        for field in one[name].keys() | other[name].keys():
            mine, theirs = one[name].get(field), other[name].get(field)
            if mine != theirs:
                found.append((name, field, repr(mine)[:200], repr(theirs)[:200]))
    return sorted(found)


def make_everything(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"content")
    (root / "d" / "empty file").write_bytes(b"")
    (root / "d" / "deeper" / "empty").mkdir(parents=True)
    (root / "empty").mkdir()
    _make_files(root / "files")
    _make_links(root)
    _make_special(root / "special")
    _make_odd(root / "odd")
    os.chmod(root / "d" / "f", 0o4711)
    os.setxattr(root / "d", "user.directory", b"\0binary\xff")
    os.chown(root / "d", 12, 34)
    os.chmod(root / "d", 0o3771)
    os.utime(root / "d", ns=(1_000_000_000_000_000_011, 1_000_000_000_000_000_022))
    os.utime(root / "empty", ns=(33, 44))


def _make_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "large").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    (folder / "owned").write_bytes(b"owned")
    os.chown(folder / "owned", 1234, 4321)
    os.chmod(folder / "owned", 0o6755)
    (folder / "long ago").write_bytes(b"")
    os.utime(folder / "long ago", ns=(-1_000_000_001, -5_000_000_003))
    (folder / "in the future").write_bytes(b"")
    os.utime(folder / "in the future", ns=(2**33 * 10**9 + 1, 2**33 * 10**9 + 999_999_999))
    with (folder / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(2 * MIB)
        file.write(b"middle")
        file.truncate(5 * MIB + 3)
    (folder / "xattrs").write_bytes(b"xattrs")
    os.setxattr(folder / "xattrs", "user.binary", BINARY)
    os.setxattr(folder / "xattrs", "user.empty", b"")
    os.setxattr(folder / "xattrs", "user.large", random.Random(2).randbytes(60_000))
    os.setxattr(folder / "xattrs", "user.na\u00efve \U0001f600", b"1")
    os.setxattr(folder / "xattrs", "trusted.t", b"2")
    (folder / "no permissions").write_bytes(b"secret")
    os.chmod(folder / "no permissions", 0)


def _make_links(root: Path) -> None:
    (root / "links").mkdir()
    os.link(root / "d" / "f", root / "links" / "hard")
    os.link(root / "d" / "f", root / "hard")
    (root / "links" / "symbolic").symlink_to("../d/f")
    os.symlink(b"nowhere \xff\n/" + b"x" * 900, os.fsencode(root / "links" / "dangling"))
    os.chown(root / "links" / "dangling", 5, 6, follow_symlinks=False)
    os.utime(root / "links" / "dangling", ns=(7, 8), follow_symlinks=False)
    os.setxattr(root / "links" / "dangling", "trusted.t", b"link", follow_symlinks=False)


def _make_special(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o622)
    os.mknod(folder / "character", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mknod(folder / "block", stat.S_IFBLK | 0o600, os.makedev(259, 1_000_000))
    os.chmod(folder / "character", 0o646)
    here = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/socket")  # the whole path is too long for an address
    finally:
        os.close(here)
    os.chown(folder / "socket", 77, 88)
    os.utime(folder / "fifo", ns=(1, 2))


def _make_odd(folder: Path) -> None:
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES):
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            file.write(b"%d" % number)
        os.chmod(path, 0o600 + number)
    inner = os.path.join(os.fsencode(folder), b"folder \xff\n")
    os.mkdir(inner, 0o750)
    with open(inner + b"/\xfe", "wb") as file:
        file.write(b"inside")


@pytest.fixture
def second(tree: MountedTree, trees: TreeMaker) -> MountedTree:
    """Another host: the same bucket, nothing else in common."""
    return trees(tree.url, tree.environment)


def test_everything_survives_a_remount_with_nothing_kept(tree: MountedTree) -> None:
    make_everything(tree.root)
    before = seen(tree.root)
    tree.remount_elsewhere()
    assert differences(before, seen(tree.root)) == []


def test_everything_survives_a_remount_with_the_cache_kept(tree: MountedTree) -> None:
    make_everything(tree.root)
    before = seen(tree.root)
    tree.umount()
    tree.mount()
    assert differences(before, seen(tree.root)) == []


def test_a_second_host_sees_everything(tree: MountedTree, second: MountedTree) -> None:
    make_everything(tree.root)
    tree.command("sync", str(tree.root))
    second.mount()
    assert differences(seen(tree.root), seen(second.root)) == []


def test_a_second_host_sees_changes(tree: MountedTree, second: MountedTree) -> None:
    make_everything(tree.root)
    tree.command("sync", str(tree.root))
    second.mount("ttl=1h,negative_ttl=1h")
    assert differences(seen(tree.root), seen(second.root)) == []
    root = tree.root
    os.chmod(root / "d" / "f", 0o600)
    os.utime(root / "files" / "large", ns=(1, 1_000_000_000_000_000_003))
    os.setxattr(root / "files" / "xattrs", "user.binary", BINARY[::-1])
    os.removexattr(root / "files" / "xattrs", "user.large")
    (root / "links" / "hard").unlink()
    (root / "files" / "owned").rename(root / "d" / "owned")
    (root / "odd").rename(root / "d" / "odd")
    (root / "empty").rmdir()
    (root / "special" / "fifo").unlink()
    with (root / "files" / "sparse").open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"filled")
    os.chown(root / "d" / "deeper", 9, 9)
    tree.command("sync", str(root))
    second.command("refresh", str(second.root))
    assert differences(seen(root), seen(second.root)) == []


def test_a_second_host_sees_changes_after_the_ttl(tree: MountedTree, second: MountedTree) -> None:
    (tree.root / "d").mkdir()
    (tree.root / "d" / "f").write_bytes(b"one")
    tree.command("sync", str(tree.root))
    second.mount("ttl=0.3s,negative_ttl=0.1s")
    assert differences(seen(tree.root), seen(second.root)) == []
    (tree.root / "d" / "f").write_bytes(b"other")
    os.chmod(tree.root / "d" / "f", 0o640)
    (tree.root / "d" / "g").write_bytes(b"new")
    os.link(tree.root / "d" / "g", tree.root / "d" / "h")
    tree.command("sync", str(tree.root))
    wait_for(lambda: not differences(seen(tree.root), seen(second.root)))


def test_both_hosts_write(tree: MountedTree, second: MountedTree) -> None:
    """Different names of one directory: neither host's records overwrite the other's."""
    (tree.root / "d").mkdir()
    tree.command("sync", str(tree.root))
    second.mount()
    for number in range(10):
        for host, mode in ((tree, 0o600), (second, 0o640)):
            path = host.root / "d" / f"{mode:o}-{number}"
            path.write_bytes(b"%d" % number)
            os.chmod(path, mode)
            os.setxattr(path, "user.number", b"%d" % number)
    for host in (tree, second, tree):
        host.command("sync", str(host.root))
    for host in (tree, second):
        host.command("refresh", str(host.root))
    assert differences(seen(tree.root / "d"), seen(second.root / "d")) == []
    assert len(os.listdir(tree.root / "d")) == 20
    tree.remount_elsewhere()
    assert differences(seen(tree.root / "d"), seen(second.root / "d")) == []


def _inode_numbers(root: Path) -> dict[bytes, int]:
    return {name: found["ino"] for name, found in seen(root).items()}


def test_inode_numbers_stay_over_rename_upload_and_remount(tree: MountedTree) -> None:
    root = tree.root
    (root / "a" / "b").mkdir(parents=True)
    for name in ("f", "a/g", "a/b/h"):
        (root / name).write_bytes(name.encode())
    os.link(root / "f", root / "a" / "link")
    before = _inode_numbers(root)
    tree.command("sync", str(root))
    assert _inode_numbers(root) == before
    (root / "f").write_bytes(b"written again")
    (root / "a" / "g").rename(root / "g")
    (root / "a" / "b").rename(root / "b")
    after = {
        b"f": before[b"f"], b"g": before[b"a/g"], b"b": before[b"a/b"], b"b/h": before[b"a/b/h"], b"a": before[b"a"],
        b"a/link": before[b"f"],
    }  # fmt: skip
    assert _inode_numbers(root) == after
    tree.command("sync", str(root))
    assert _inode_numbers(root) == after
    tree.remount_elsewhere()
    assert _inode_numbers(root) == after


def test_a_renamed_directory_keeps_all_that_is_inside(tree: MountedTree) -> None:
    make_everything(tree.root)
    (tree.root / "target").mkdir()
    before = seen(tree.root / "d") | {b"odd/" + name: found for name, found in seen(tree.root / "odd").items()}
    tree.command("sync", str(tree.root))
    (tree.root / "d").rename(tree.root / "target" / "moved")
    (tree.root / "odd").rename(tree.root / "target" / "moved" / "odd")

    def after() -> dict[bytes, dict[str, Any]]:
        found = seen(tree.root / "target" / "moved")
        found.pop(b"odd")
        return found

    moved = after()
    assert differences(before, moved) == []
    tree.remount_elsewhere()
    assert differences(moved, after()) == []
    assert sorted(os.listdir(tree.root)) == ["empty", "files", "hard", "links", "special", "target"]


def test_files_that_mv_carries_to_another_directory(tree: MountedTree) -> None:
    root = tree.root
    make_everything(root)
    (root / "new place").mkdir()
    before = seen(root)
    for name in ("files", "special"):
        subprocess.run(["mv", *(root / name).iterdir(), root / "new place"], check=True, timeout=120)
    moved = {name.replace(b"files/", b"new place/").replace(b"special/", b"new place/") for name in before}

    def kept() -> dict[bytes, dict[str, Any]]:
        return seen(root / "new place")

    assert {b"new place/" + name for name in kept()} <= moved
    after = kept()
    for name, found in after.items():
        old = before.get(b"files/" + name) or before[b"special/" + name]
        assert {**found, "times": found["times"][:2]} == {**old, "times": old["times"][:2]}
    tree.remount_elsewhere()
    assert differences(after, kept()) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_git_index_stays_clean_over_a_remount(tree: MountedTree) -> None:
    """Git compares size, times, inode number, owner and mode with what it noted; nothing refreshes its notes here."""
    repository = tree.root / "repository"
    repository.mkdir()
    environment = {
        **os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
    }  # fmt: skip

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", repository, *arguments],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init", "-q")
    for number in range(40):
        folder = repository / f"d{number % 4}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(b"%d\n" % number * number)
    (repository / "link").symlink_to("d0/f0")
    (repository / "d0" / "f0").chmod(0o755)
    git("add", ".")
    git("commit", "-q", "-m", "all")
    git("mv", "d1", "moved")
    git("commit", "-q", "-m", "moved")
    git("update-index", "-q", "--refresh")
    assert git("diff-files") == ""
    tree.umount()
    tree.mount()
    assert git("diff-files") == ""
    tree.remount_elsewhere()
    assert git("diff-files") == ""
    assert git("status", "--porcelain") == ""
    git("fsck", "--strict")
