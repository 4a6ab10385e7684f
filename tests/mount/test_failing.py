"""Changes that the store never takes: they are shown with the reason, hold up nothing else, and end when their cause does."""

from __future__ import annotations

import json
import os

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, make_tree, wait_for
from tests.mount.foreign import Foreign


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
