"""What the local disk changes while it waits for the store is not uploaded."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy
from tests.waiting import wait_for

SIZES = {"small": 5000, "large": 3 << 20}
"""Sent by a thread, and on the event loop."""


def summed(tree: MountedTree) -> list[str]:
    """Staging files with a checksum."""
    with contextlib.closing(sqlite3.connect(tree.places / "state" / "catalog.db")) as database:
        return [path for (path,) in database.execute("SELECT staging FROM sums WHERE digest IS NOT NULL")]


def damage(path: str) -> None:
    """No time moves, as if the disk had done it."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(status.st_size // 2)
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def changed(tree: MountedTree) -> set[str]:
    """Files of which ``status`` tells that they are not uploaded for that."""
    return {one["path"] for one in tree.status()["failing"] if "the local disk has changed" in one["error"]}


@pytest.mark.timeout(300)
def test_it_is_told_and_stays(proxied: tuple[MountedTree, FaultyProxy, Foreign]) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    for name in SIZES:
        foreign.put(name, b"stored before")
    proxy.fail(10**6, status=503, method="PUT")
    proxy.fail(10**6, status=503, method="POST")
    for name, size in SIZES.items():
        (tree.root / name).write_bytes(b"w" * size)
    (tree.root / "whole").write_bytes(b"good")
    wait_for(lambda: len(summed(tree)) == 3)
    for path in summed(tree):
        if Path(path).stat().st_size in SIZES.values():
            damage(path)
    # An attempt that had read the bytes before may be under way: it would send those that were written.
    wait_for(lambda: changed(tree) == set(SIZES), 200)
    proxy.heal()
    done = tree.command("sync", str(tree.root), check=False)
    assert done.returncode == 1
    assert "the local disk has changed the bytes" in done.stderr
    assert {name: foreign.get(name) for name in foreign.keys()} == {  # noqa: SIM118
        "small": b"stored before",
        "large": b"stored before",
        "whole": b"good",
    }
    for name in SIZES:
        (tree.root / name).write_bytes(b"again")
    tree.umount()
    assert {foreign.get(name) for name in SIZES} == {b"again"}
