"""``fsdriver verify`` beside a mount: what it removes from the cache, the mount hands out no more."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker

BODY = os.urandom(3 << 20)


@pytest.fixture(params=["", "passthrough=off"], ids=["passthrough", "daemon"])
def cached(trees: TreeMaker, s3_server, request: pytest.FixtureRequest) -> MountedTree:
    """Another host has written ``f``; this one has it whole in the cache."""
    s3_server.client().put_object(Bucket=(bucket := s3_server.create_bucket()), Key="p/f", Body=BODY)
    tree = trees(f"s3://{bucket}/p", s3_server.environment(), *filter(None, [request.param])).mount()
    assert (tree.root / "f").read_bytes() == BODY
    tree.command("warm", str(tree.root / "f"))
    return tree


def damage(tree: MountedTree) -> Path:
    (path,) = (one for one in (tree.places / "cache" / "objects").glob("[0-9a-f]*/*/*"))
    with path.open("r+b") as file:
        file.seek(len(BODY) // 2)
        byte = file.read(1)[0]
        file.seek(len(BODY) // 2)
        file.write(bytes([byte ^ 1]))
    return path


@pytest.mark.parametrize("here", [True, False], ids=["of a path", "of the cache"])
def test_what_is_removed_is_read_no_more(cached: MountedTree, here: bool) -> None:
    tree = cached
    damage(tree)
    arguments = [str(tree.root)] if here else []
    found = tree.command("verify", *arguments, check=False)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "f: " in found.stdout
    tree.command("refresh", str(tree.root))
    assert (tree.root / "f").read_bytes() == BODY
    tree.command("verify", *arguments)
    tree.umount()


def test_repair_fetches_at_once(cached: MountedTree) -> None:
    tree = cached
    path = damage(tree)
    assert "fetched anew" in tree.command("verify", "--repair", str(tree.root), check=False).stdout
    assert path.read_bytes() == BODY
    tree.command("verify", "--bytes", str(tree.root))
    tree.umount()


def test_no_alarm_while_programs_write(cached: MountedTree) -> None:
    tree, stop = cached, threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            (tree.root / f"w{number % 4}").write_bytes(os.urandom(10_000))
            (tree.root / "f").write_bytes(BODY)
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for arguments in [[str(tree.root)], []] * 3:
            tree.command("verify", *arguments)
    finally:
        stop.set()
        thread.join()
    tree.umount()
