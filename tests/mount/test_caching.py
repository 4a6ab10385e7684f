"""``fsdriver warm``, ``evict``, ``pin`` and ``unpin`` on a mount, and the attribute ``user.fsdriver.pin``."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.testing.servers import S3Service
from tests.mount.conftest import MountedTree, TreeMaker, fails_with, make_tree, wait_for
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy

KIB = 1 << 10
MIB = 1 << 20
STATE = "user.fsdriver.state"
PIN = "user.fsdriver.pin"


@pytest.fixture(params=["s3", "s3_daemon", "s3_libfuse"])
def cold(request, trees: TreeMaker, s3_server: S3Service) -> MountedTree:
    """A mount of a bucket that another program filled; nothing is cached."""
    tree = make_tree(request.param, trees, request)
    foreign = Foreign(tree, s3_server.client())
    foreign.put("large", bytes(range(256)) * (12 * KIB))
    for number in range(5):
        foreign.put(f"d/{number}", b"%d" % number * 1000)
    foreign.put("d/deeper/é", b"e")
    return tree.mount()


def state(path: Path) -> str:
    return os.getxattr(path, STATE).decode()


def everything(tree: MountedTree) -> list[Path]:
    return sorted(path for path in tree.root.rglob("*") if path.is_file())


@pytest.mark.timeout(180)
def test_warm_fetches_once_and_reading_asks_the_store_no_more(cold: MountedTree) -> None:
    assert {state(path) for path in everything(cold)} == {"remote"}
    done = cold.command("warm", str(cold.root / "large"))
    assert done.stdout == "1 file in the cache: 3.1 MB fetched, 0 here already\n"
    assert state(cold.root / "large") == "cached"
    done = cold.command("warm", "--recursive", "--jobs", "3", str(cold.root))
    assert done.stdout == "7 files in the cache: 5.0 kB fetched, 1 here already\n"
    assert done.stderr == ""
    assert {state(path) for path in everything(cold)} == {"cached"}
    fetched = cold.status()["cache"]["fetches"]
    for path in everything(cold):
        assert path.read_bytes()
    assert cold.status()["cache"]["fetches"] == fetched


@pytest.mark.timeout(180)
def test_evict_removes_what_nobody_needs(cold: MountedTree) -> None:
    cold.command("warm", "-r", str(cold.root))
    done = cold.command("evict", str(cold.root / "large"))
    assert done.stdout == "1 file evicted, 3.1 MB\n"
    assert state(cold.root / "large") == "remote"
    assert (cold.root / "d" / "3").read_bytes() == b"3" * 1000
    done = cold.command("evict", str(cold.root / "d"))
    assert done.stdout == "6 files evicted, 5.0 kB\n", "what was closed a moment ago is not open"
    assert cold.status()["cache"]["entries"] == 0
    assert (cold.root / "d" / "3").read_bytes() == b"3" * 1000


@pytest.mark.timeout(180)
def test_evict_says_what_stays(cold: MountedTree) -> None:
    cold.command("warm", "-r", str(cold.root))
    cold.command("pin", str(cold.root / "d" / "1"))
    assert (cold.root / "d" / "2").read_bytes() == b"2" * 1000, "from now on the kernel has its pages"
    with open(cold.root / "d" / "2", "rb"):
        done = cold.command("evict", str(cold.root / "d"), check=False)
        assert done.returncode == 1
        assert done.stdout == "4 files evicted, 3.0 kB\n"
        assert done.stderr.splitlines() == [
            f"fsdriver: {cold.root / 'd'}: 1 file stays: open in some program",
            f"fsdriver: {cold.root / 'd'}: 1 file stays: pinned (fsdriver unpin)",
        ]
        assert state(cold.root / "d" / "2") == "cached"
    done = cold.command("evict", str(cold.root / "d" / "2"))
    assert done.stdout == "1 file evicted, 1.0 kB\n"


@pytest.mark.timeout(180)
def test_pins_last_and_are_counted(cold: MountedTree) -> None:
    done = cold.command("pin", "--recursive", str(cold.root / "d"))
    assert done.stdout == "6 files pinned\n"
    assert cold.status()["cache"]["pinned"] == 6
    assert state(cold.root / "d" / "1") == "remote", "pinning fetches nothing"
    cold.umount()
    cold.mount()
    assert cold.status()["cache"]["pinned"] == 6
    assert os.getxattr(cold.root / "d" / "deeper" / "é", PIN) == b"1"
    assert cold.command("unpin", str(cold.root / "d" / "1"), str(cold.root / "d" / "2")).stdout == "2 files unpinned\n"
    assert os.getxattr(cold.root / "d" / "1", PIN) == b"0"
    assert json.loads((cold.root / ".fsdriver" / "stats.json").read_text())["cache"]["pinned"] == 4


@pytest.mark.timeout(180)
def test_the_attribute_pins(cold: MountedTree) -> None:
    path = cold.root / "d" / "1"
    assert os.getxattr(path, PIN) == b"0"
    os.setxattr(path, PIN, b"1")
    assert os.getxattr(path, PIN) == b"1"
    assert os.listxattr(path) == []
    assert cold.command("evict", str(path), check=False).returncode == 0, "it is not here yet"
    cold.command("warm", str(path))
    assert cold.command("evict", str(path), check=False).returncode == 1
    os.setxattr(path, PIN, b"0")
    assert os.getxattr(path, PIN) == b"0"
    os.setxattr(path, PIN, b"1")
    os.removexattr(path, PIN)
    assert os.getxattr(path, PIN) == b"0"
    with fails_with(errno.EINVAL):
        os.setxattr(path, PIN, b"yes")
    with fails_with(errno.EISDIR):
        os.setxattr(path.parent, PIN, b"1")


def test_a_pin_follows_the_file_as_it_is_written(trees: TreeMaker, s3_server: S3Service) -> None:
    tree = trees(f"s3://{s3_server.create_bucket()}/p", s3_server.environment(), "cache.size=3M").mount()
    pinned = tree.root / "pinned"
    pinned.write_bytes(b"old")
    os.setxattr(pinned, PIN, b"1")
    pinned.write_bytes(b"new" * 1000)
    done = tree.command("evict", str(pinned), check=False)
    assert (done.returncode, done.stdout) == (1, "0 files evicted, 0 bytes\n")
    tree.command("sync", str(tree.root))
    for number in range(8):
        (tree.root / f"{number}").write_bytes(bytes(MIB))
    tree.command("sync", str(tree.root))
    wait_for(lambda: tree.status()["cache"]["evictions"])
    assert state(pinned) == "cached"
    assert tree.status()["cache"]["bytes"] <= 3 * MIB
    assert pinned.read_bytes() == b"new" * 1000


def test_what_is_not_uploaded_stays(trees: TreeMaker, s3_server: S3Service) -> None:
    with FaultyProxy(s3_server.endpoint) as proxy:
        environment = {**s3_server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}
        tree = trees(f"s3://{s3_server.create_bucket()}/p", environment, "timeout=2s").mount()
        (tree.root / "before").write_bytes(b"x")
        tree.command("sync", str(tree.root))
        proxy.fail(1000, method="PUT", match="pending")
        (tree.root / "pending").write_bytes(b"precious")
        done = tree.command("evict", str(tree.root / "pending"), check=False)
        assert done.returncode == 1
        assert "1 file stays: not in the store yet (fsdriver sync)" in done.stderr
        assert (tree.root / "pending").read_bytes() == b"precious"
        tree.end()


@pytest.fixture(scope="module")
def some(module_trees: TreeMaker) -> Iterator[MountedTree]:
    """A local tree with one file."""
    tree = module_trees(None, None).mount()
    (tree.root / "file").write_bytes(b"x" * 100)
    (tree.root / "link").symlink_to("file")
    (tree.root / "nowhere").symlink_to("gone")
    os.mkfifo(tree.root / "pipe")
    (tree.root / "empty").touch()
    (tree.root / "directory").mkdir()
    tree.command("sync", str(tree.root))
    return tree


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["warm", "{root}/gone"], "No such file or directory: '{root}/gone'"),
        (["warm", "{root}/nowhere"], "No such file or directory: '{root}/gone'"),
        (["warm", "{root}/directory"], "is a directory; --recursive takes the files in it"),
        (["warm", "{root}/pipe"], "mnt: pipe: is a fifo, which has no bytes in the store"),
        (["warm", "/etc/passwd"], "/etc/passwd: this is not inside an fsdriver mount (mounted: "),
        (["warm", "-o", "region=x", "{root}/file"], "{root}/file: -o is for URLs; this is a path"),
        (["evict", "{root}/gone"], "No such file or directory: '{root}/gone'"),
        (["pin", "{root}/directory"], "is a directory; --recursive takes the files in it"),
        (["pin", "{root}/pipe"], "is a fifo, which has no bytes in the store"),
        (["unpin", "{root}/gone"], "No such file or directory: '{root}/gone'"),
        (["warm", "nonsense://x/y"], "unknown scheme 'nonsense'"),
        (["evict", "s3://"], "name a container"),
    ],
)
def test_mistakes_are_explained(some: MountedTree, arguments: list[str], message: str) -> None:
    given = [argument.format(root=some.root) for argument in arguments]
    done = some.command(*given, check=False)
    assert done.returncode == 1
    assert message.format(root=some.root) in done.stderr
    assert "Traceback" not in done.stderr


def test_odd_files(some: MountedTree) -> None:
    assert some.command("warm", str(some.root / "link")).returncode == 0
    assert some.command("warm", str(some.root / "empty")).stdout.startswith("1 file in the cache: 0 bytes fetched")
    assert some.command("warm", "-r", str(some.root / "directory")).stdout.startswith("0 files in the cache")
    done = some.command("warm", "-r", str(some.root))
    assert done.stdout.startswith("2 files in the cache"), "links and special files are left out"
    assert some.command("evict", str(some.root)).returncode == 0


def test_one_failure_does_not_stop_the_others(trees: TreeMaker, s3_server: S3Service) -> None:
    tree = trees(f"s3://{s3_server.create_bucket()}/p", s3_server.environment(), "cache.size=1M")
    foreign = Foreign(tree, s3_server.client())
    foreign.put("a", bytes(100))
    foreign.put("b", bytes(4 * MIB))
    foreign.put("c", bytes(100))
    tree.mount()
    done = tree.command("warm", "-r", str(tree.root), check=False)
    assert done.returncode == 1
    assert done.stdout == "2 files in the cache: 200 bytes fetched, 0 here already\n"
    assert "these are 4.2 MB and the cache holds 1.0 MB" in done.stderr
    assert "raise cache.size" in done.stderr
