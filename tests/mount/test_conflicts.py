"""What two hosts change at once, as programs on a mount meet it, and after a crash of the daemon in the middle of an upload."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.mount.conftest import MountedTree, TreeMaker, fails_with, kill_daemon
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy
from tests.waiting import wait_for

Proxied = tuple[MountedTree, FaultyProxy, Foreign]


def stored(foreign: Foreign) -> dict[str, bytes]:
    return {key: foreign.get(key) for key in foreign.keys()}  # noqa: SIM118


def test_two_mounts_edit_one_file(trees: TreeMaker, s3_server) -> None:
    """The first wins; who comes second is told, and its bytes are kept."""
    url, environment = f"s3://{s3_server.create_bucket()}/p", s3_server.environment()
    first = trees(url, environment, "write=through", "ttl=0s").mount()
    through = trees(url, environment, "write=through", "ttl=0s").mount()
    back = trees(url, environment, "ttl=0s").mount()
    (first.root / "f").write_bytes(b"before")
    edits = {tree.url + str(tree.places): (tree, os.open(tree.root / "f", os.O_RDWR)) for tree in (through, back)}
    with open(first.root / "f", "r+b") as file:
        file.write(b"winner")
    for tree, descriptor in edits.values():
        os.pwrite(descriptor, b"second", 0)
        if tree is through:
            with fails_with(errno.ESTALE):
                os.close(descriptor)
        else:
            os.close(descriptor)
            failed = tree.command("sync", str(tree.root), check=False)
            assert failed.returncode == 1
            assert "another writer" in failed.stderr
    kept = [one["kept"] for tree in (through, back) for one in tree.status()["conflicts"]]
    assert len(kept) == 2
    assert kept[0] in through.command("status", str(through.root)).stdout
    for tree in (first, through, back):
        assert files(tree.root) == {"f": b"winner", **dict.fromkeys(kept, b"second")}


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_another_writer_is_faster_while_the_daemon_is_dead(proxied: Proxied) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(1000, hold=True, method="PUT", match="/f")
    (tree.root / "f").write_bytes(b"ours")
    wait_for(lambda: proxy.held)
    kill_daemon(tree)
    foreign.put("f", b"theirs")
    proxy.release()
    tree.mount()
    wait_for(lambda: tree.status()["conflicts"])
    tree.command("sync", str(tree.root), check=False)
    (lost,) = tree.status()["conflicts"]
    assert lost["path"] == "f"
    assert stored(foreign) == {"f": b"theirs", lost["kept"]: b"ours"}
    tree.umount()


def test_an_upload_that_the_store_took_from_a_dead_daemon_is_no_conflict(proxied: Proxied) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(1000, hold=True, method="PUT", match="/f")
    (tree.root / "f").write_bytes(b"ours")
    wait_for(lambda: proxy.held)
    kill_daemon(tree)
    proxy.release()
    wait_for(lambda: foreign.keys() == ["f"])
    tree.mount()
    tree.command("sync", str(tree.root))
    assert tree.status()["conflicts"] == []
    assert stored(foreign) == {"f": b"ours"}
    tree.umount()
