"""Changes that the store never takes: they are shown with the reason, hold up nothing else, and end when their cause does."""

from __future__ import annotations

import errno
import json
import os

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, fails_with, make_tree, wait_for
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy


@pytest.fixture(params=["local", "s3"])
def tree(request, trees: TreeMaker) -> MountedTree:
    return make_tree(request.param, trees, request)


def test_what_is_renamed_had_been_removed_by_another_program(tree: MountedTree, foreign: Foreign) -> None:
    """There is nothing to rename any more: nothing is owed for it for ever."""
    foreign.put("f", b"x" * 1000)
    tree.mount("ttl=1h")
    assert (tree.root / "f").stat().st_size == 1000
    foreign.delete("f")
    (tree.root / "f").rename(tree.root / "g")
    wait_for(lambda: not tree.status()["pending"])
    tree.command("refresh", str(tree.root))
    assert os.listdir(tree.root) == []
    told = tree.command("sync", str(tree.root), check=False)
    assert "another writer changed it first" in told.stderr
    tree.umount()


def test_a_change_the_store_refuses_is_shown_and_can_be_undone(trees: TreeMaker, s3_server) -> None:
    tree = trees(f"s3://{s3_server.create_bucket()}/p", s3_server.environment())
    foreign = Foreign(tree, s3_server.client())
    tree.mount()
    odd = tree.root / ("\x01" * 200)
    odd.write_bytes(b"its key has a segment of 600 bytes")
    wait_for(lambda: tree.status()["failing"])
    (tree.root / "other").write_bytes(b"x")
    wait_for(lambda: foreign.keys() == ["other"])
    ((shown),) = tree.status()["failing"]
    assert shown["path"] == "\x01" * 200
    assert shown["error"]
    (listed,) = json.loads((tree.root / ".fsdriver" / "pending.json").read_text())
    assert listed["error"] == shown["error"]
    told = tree.command("status", str(tree.root)).stdout
    assert "1 change fails" in told
    odd.rename(tree.root / "short")
    tree.command("sync", str(tree.root))
    assert foreign.keys() == ["other", "short"]
    assert tree.status()["failing"] == []
    tree.umount()


def test_sync_tries_again_what_failed_before(proxied: tuple[MountedTree, FaultyProxy, Foreign]) -> None:
    """Whoever has mended the store is not told how it was, nor made to wait for the next try."""
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(10_000, status=403, method="PUT")
    (tree.root / "f").write_bytes(b"content")
    wait_for(lambda: tree.status()["failing"])
    told = tree.command("sync", str(tree.root), check=False)
    assert told.returncode == 1
    assert "403" in told.stderr
    proxy.heal()
    tree.command("sync", str(tree.root))
    assert foreign.keys() == ["f"]
    tree.umount()


def test_what_failed_before_does_not_fail_what_comes_after(
    proxied: tuple[MountedTree, FaultyProxy, Foreign],
) -> None:
    """``through``: an attribute object that the store did not take a moment ago is asked for again."""
    tree, proxy, _ = proxied
    tree.mount("write=through", "retries=0")
    for name in ("f", "g"):
        (tree.root / name).write_bytes(b"x")
    proxy.fail(10_000, status=500, method="PUT", match="/.fsdriver/")
    with fails_with(errno.EIO, errno.ETIMEDOUT):
        (tree.root / "f").chmod(0o600)
    proxy.heal()
    (tree.root / "g").chmod(0o600)
    tree.umount()


def test_umount_after_a_conflict(tree: MountedTree, foreign: Foreign) -> None:
    """Nothing is owed: it is told where the bytes are, and unmounted."""
    tree.mount("ttl=1h")
    (tree.root / "f").write_bytes(b"first")
    tree.command("sync", str(tree.root))
    assert (tree.root / "f").read_bytes() == b"first"
    foreign.put("f", b"foreign, and longer")
    (tree.root / "f").write_bytes(b"ours")
    wait_for(lambda: not tree.status()["pending"])
    told = tree.command("umount", str(tree.root), check=False)
    assert told.returncode == 1
    assert "kept as f.conflict-" in told.stderr
    assert not os.path.ismount(tree.root)
    assert tree.daemon_pids() == []


def test_what_stands_though_the_store_does_not_have_it_is_shown(
    proxied: tuple[MountedTree, FaultyProxy, Foreign],
) -> None:
    """``through``: a change that failed for want of the store is journaled; names and open files are as it left them."""
    tree, proxy, foreign = proxied
    tree.mount("write=through", "retries=0", "ttl=1h", "negative_ttl=1h")
    for name in ("moved", "removed", "replaced"):
        (tree.root / name).write_bytes(name.encode())
    (tree.root / "d").mkdir()
    (tree.root / "d" / "f").write_bytes(b"f")
    assert sorted(os.listdir(tree.root)) == ["d", "moved", "removed", "replaced"]
    assert not (tree.root / "target").exists()
    assert not (tree.root / "made").exists()
    assert not (tree.root / "e").exists()
    with (tree.root / "moved").open("ab", buffering=0) as file:
        file.write(b" and")
        proxy.fail(100_000, status=500)
        for change in (
            lambda: (tree.root / "moved").rename(tree.root / "target"),
            (tree.root / "removed").unlink,
            (tree.root / "made").mkdir,
            lambda: (tree.root / "d").rename(tree.root / "e"),
        ):
            with fails_with(errno.EIO, errno.ETIMEDOUT):
                change()
        for name in ("moved", "removed", "d"):
            wait_for(lambda name=name: not (tree.root / name).exists())
        for name in ("target", "made", "e"):
            wait_for(lambda name=name: (tree.root / name).exists())
        assert sorted(os.listdir(tree.root)) == ["e", "made", "replaced", "target"]
        proxy.heal()
        file.write(b" after")
    tree.command("sync", str(tree.root))
    assert foreign.keys() == ["e/f", "replaced", "target"]
    assert foreign.get("target") == b"moved and after"
    assert sorted(os.listdir(tree.root)) == ["e", "made", "replaced", "target"]
    tree.umount()


def test_a_mount_tells_what_is_wrong_while_the_store_does_not_answer(
    proxied: tuple[MountedTree, FaultyProxy, Foreign],
) -> None:
    tree, proxy, _ = proxied
    tree.mount("retries=0", "ttl=0s")
    assert os.listdir(tree.root) == []
    proxy.fail(100_000, status=500)
    with fails_with(errno.EIO, errno.ETIMEDOUT):
        os.listdir(tree.root)
    health = json.loads((tree.root / ".fsdriver" / "health.json").read_text())
    assert health["state"] == "mounted"
    assert json.loads((tree.root / ".fsdriver" / "pending.json").read_text()) == []
    proxy.heal()
    assert os.listdir(tree.root) == []
    tree.umount()
