"""The end of a mount whose store is slow or away: it shows how far it is, ends in time and says what is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, kill_daemon, wait_for
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy

Proxied = tuple[MountedTree, FaultyProxy, Foreign]
DATA = b"x" * 2000


@contextmanager
def running(tree: MountedTree, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``fsdriver …``, ended whatever a test does."""
    command = subprocess.Popen(
        [sys.executable, "-m", "fsdriver", *arguments],
        env={**tree.env, **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield command
    finally:
        command.kill()
        command.wait()
        assert command.stderr is not None
        command.stderr.close()


def with_pending(proxied: Proxied, *options: str) -> Proxied:
    """Mounted, with one file that the store does not take until the proxy releases it."""
    tree, proxy, _ = proxied
    tree.mount(*options)
    proxy.fail(10**6, hold=True, method="PUT")
    (tree.root / "f").write_bytes(DATA)
    return proxied


def is_sent_by_the_next_mount(tree: MountedTree, foreign: Foreign) -> None:
    tree.mount()
    assert (tree.root / "f").read_bytes() == DATA
    tree.umount()
    assert foreign.keys() == ["f"]
    assert foreign.get("f") == DATA


def test_umount_while_the_store_is_away(proxied: Proxied) -> None:
    tree, proxy, foreign = proxied
    tree.mount("retries=0")
    assert os.listdir(tree.root) == []
    proxy.refuse()
    (tree.root / "f").write_bytes(DATA)
    told = tree.command("umount", str(tree.root), check=False)
    assert told.returncode == 1
    assert "no connection" in told.stderr
    assert "1 change (2.0 kB) are journaled, but not uploaded" in told.stderr.replace("changes", "change")
    assert "mounted again" in told.stderr
    assert not os.path.ismount(tree.root)
    wait_for(lambda: not tree.daemon_pids())
    proxy.accept()
    is_sent_by_the_next_mount(tree, foreign)


def test_umount_of_a_slow_store_shows_how_much_is_left(proxied: Proxied) -> None:
    tree, proxy, foreign = with_pending(proxied)
    with running(tree, "umount", str(tree.root)) as umount:
        assert umount.stderr is not None
        line = umount.stderr.readline()
        assert "uploading" in line
        assert "(2.0 kB) left" in line
        proxy.release()
        assert umount.wait(60) == 0
    assert foreign.keys() == ["f"]


def test_umount_ends_in_time(proxied: Proxied) -> None:
    tree, proxy, foreign = with_pending(proxied)
    told = tree.command("umount", "--timeout", "1", str(tree.root), check=False)
    assert told.returncode == 1
    assert "after 1 s" in told.stderr
    assert "journaled" in told.stderr
    assert not os.path.ismount(tree.root)
    proxy.release()
    wait_for(lambda: not tree.daemon_pids())
    is_sent_by_the_next_mount(tree, foreign)


def test_an_interrupted_umount_leaves_the_mount_as_it_is(proxied: Proxied) -> None:
    tree, proxy, foreign = with_pending(proxied)
    with running(tree, "umount", str(tree.root)) as umount:
        assert umount.stderr is not None
        assert "left" in umount.stderr.readline()
        umount.send_signal(signal.SIGINT)
        assert umount.wait(60) == 130
        assert "stays mounted" in umount.stderr.read()
    assert tree.status()["state"] == "mounted"
    proxy.release()
    wait_for(lambda: not tree.status()["pending"])
    assert foreign.keys() == ["f"]
    tree.umount()


def test_a_service_that_is_stopped_tells_how_far_it_is_and_ends_in_time(proxied: Proxied, tmp_path: Path) -> None:
    """The manager is asked for time as long as the bound of the mount allows."""
    tree, proxy, foreign = proxied
    arguments = ["mount", tree.url, str(tree.root), "--foreground", "-o", "drain_timeout=3s"]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        running(tree, *arguments, NOTIFY_SOCKET=str(tmp_path / "notify")) as daemon,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        assert manager.recv(4096).startswith(b"READY=1\n")
        proxy.fail(10**6, hold=True, method="PUT")
        (tree.root / "f").write_bytes(DATA)
        daemon.send_signal(signal.SIGTERM)
        assert manager.recv(4096).startswith(b"STOPPING=1")
        told = manager.recv(4096)
        assert b"(2.0 kB) left\nEXTEND_TIMEOUT_USEC=" in told
        _, log = daemon.communicate(timeout=60)
        assert daemon.returncode == 1
    assert "journaled, but not uploaded: the next mount" in log
    proxy.release()
    is_sent_by_the_next_mount(tree, foreign)


def test_a_second_signal_ends_the_uploads_at_once(proxied: Proxied) -> None:
    tree, proxy, foreign = with_pending(proxied, "drain_timeout=1h")
    (pid,) = tree.daemon_pids()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: tree.status()["state"] == "draining")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not tree.daemon_pids())
    assert not os.path.ismount(tree.root)
    proxy.release()
    is_sent_by_the_next_mount(tree, foreign)


@pytest.mark.parametrize("killed", [False, True])
def test_plain_umount_returns_at_once_and_the_daemon_goes_on(proxied: Proxied, killed: bool) -> None:
    tree, proxy, foreign = with_pending(proxied)
    subprocess.run(["umount", tree.root], check=True, timeout=60)
    assert tree.daemon_pids()
    if killed:
        kill_daemon(tree)
        proxy.release()
        is_sent_by_the_next_mount(tree, foreign)
        return
    proxy.release()
    wait_for(lambda: not tree.daemon_pids())
    assert foreign.get("f") == DATA
