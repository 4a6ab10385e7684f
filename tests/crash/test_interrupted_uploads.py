"""A daemon dies while it uploads, and its upload reaches the store all the same: nobody else has written there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import stored
from tests.mount.conftest import MountedTree, kill_daemon, opened
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy
from tests.waiting import wait_for

Proxied = tuple[MountedTree, FaultyProxy, Foreign]


def contents(foreign: Foreign) -> dict[str, bytes]:
    return {key: foreign.get(key) for key in foreign.keys()}  # noqa: SIM118


def killed_while_uploading(proxied: Proxied, *, before: bytes | None, synced: bytes = b"") -> None:
    """The upload of ``f`` arrives, and the daemon that sent it is dead; what was synced of it later is in the journal."""
    tree, proxy, foreign = proxied
    tree.mount()
    if before is not None:
        (tree.root / "f").write_bytes(before)
        tree.command("sync", str(tree.root))
    proxy.fail(1, hold=True, method="PUT", match="/p/f")
    (tree.root / "f").write_bytes(b"sent")
    wait_for(lambda: proxy.held)
    if synced:
        with opened(tree.root / "f", os.O_WRONLY | os.O_APPEND) as file:
            os.write(file, synced)
            os.fsync(file)
            kill_daemon(tree)
    else:
        kill_daemon(tree)
    tree.end()
    proxy.release()
    wait_for(lambda: contents(foreign).get("f") == b"sent")


@pytest.mark.parametrize("before", [None, b"stored before"])
def test_what_was_synced_meanwhile_is_no_conflict(proxied: Proxied, before: bytes | None) -> None:
    killed_while_uploading(proxied, before=before, synced=b" and more")
    tree, _, foreign = proxied
    tree.command("recover", tree.url)
    assert contents(foreign) == {"f": b"sent and more"}


@pytest.mark.parametrize("how", ["written", "removed", "renamed", "attributes"])
def test_what_the_next_daemon_is_told_is_no_conflict(proxied: Proxied, how: str) -> None:
    """The name is changed before its upload is tried again."""
    killed_while_uploading(proxied, before=None)
    tree, proxy, foreign = proxied
    for method in ("PUT", "DELETE"):
        proxy.fail(1000, status=503, method=method, match="/p/f")
    tree.mount()
    f: Path = tree.root / "f"
    if how == "written":
        f.write_bytes(b"anew")
    elif how == "removed":
        f.unlink()
    elif how == "renamed":
        f.rename(tree.root / "g")
    else:
        f.chmod(0o600)
    proxy.heal()
    tree.umount()
    expected = {"written": {"f": b"anew"}, "removed": {}, "renamed": {"g": b"sent"}, "attributes": {"f": b"sent"}}
    assert contents(foreign) == expected[how]
    tree.mount()
    assert {path.name: path.read_bytes() for path in tree.root.iterdir()} == expected[how]
    if how == "attributes":
        assert f.stat().st_mode & 0o777 == 0o600


OVERWRITES = """
import os, sys, time, fsspec
fs, root = fsspec.url_to_fs(sys.argv[1], write="back")
fs.pipe_file(root + "/f", b"first")
print("pending", flush=True)
sys.stdin.readline()
if sys.argv[2] == "written":
    fs.pipe_file(root + "/f", b"second")
else:
    fs.pipe_file(root + "/g", b"second")
    fs.mv(root + "/g", root + "/f")
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("stored", [False, True], ids=["new", "stored before"])
@pytest.mark.parametrize("how", ["written", "renamed"])
def test_what_arrives_late_replaces_nothing(proxied: Proxied, how: str, stored: bool) -> None:
    """fsspec overwrites whatever is there; an upload of the dead arrives after what was acknowledged later."""
    tree, proxy, foreign = proxied
    if stored:
        foreign.put("f", b"stored before")
    proxy.fail(1, hold=True, method="PUT", match="/p/f")
    with subprocess.Popen(
        [sys.executable, "-c", OVERWRITES, f"tier::{tree.url}", how],
        env=tree.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        try:
            assert writer.stdout.readline() == b"pending\n"
            wait_for(lambda: proxy.held)
            writer.stdin.close()
            writer.wait(60)
        finally:
            writer.kill()
    tree.command("recover", tree.url)
    before = len(proxy.late)
    proxy.release()
    wait_for(lambda: len(proxy.late) > before)
    assert contents(foreign) == {"f": b"second"}


@pytest.mark.parametrize("removed", [False, True])
def test_an_upload_in_parts_whose_beginning_was_not_answered_is_removed(proxied: Proxied, removed: bool) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(1, hold=True, method="POST", match="uploads")
    with open(tree.root / "f", "wb") as file:
        file.truncate(65 << 20)
    wait_for(lambda: proxy.held)
    if removed:
        (tree.root / "f").unlink()
    kill_daemon(tree)
    tree.end()
    proxy.release()
    wait_for(lambda: stored.unfinished_uploads(foreign.client, tree.url))
    tree.command("recover", tree.url)
    assert stored.unfinished_uploads(foreign.client, tree.url) == []
    assert foreign.keys() == ([] if removed else ["f"])
    assert stored.left_on_host(tree.places) == {}
