"""``fsdriver recover``: what dead processes left is sent without a mount; what belongs to the living is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.testing.servers import S3Service, SeaweedFS
from tests.crash import stored
from tests.mount.conftest import MountedTree, TreeMaker, kill_daemon, opened
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy
from tests.waiting import wait_for

Proxied = tuple[MountedTree, FaultyProxy, Foreign]


def contents(foreign: Foreign) -> dict[str, bytes]:
    return {key: foreign.get(key) for key in foreign.keys()}  # noqa: SIM118


@pytest.fixture
def left_behind(proxied: Proxied) -> Proxied:
    """A daemon was killed that had not sent anything: files, names, attributes."""
    tree, proxy, _ = proxied
    tree.mount()
    proxy.fail(10_000, hold=True, method="PUT")
    for number in range(30):
        (tree.root / f"{number}").write_bytes(b"%d" % number)
    (tree.root / "0").chmod(0o600)
    (tree.root / "1").rename(tree.root / "renamed")
    (tree.root / "2").unlink()
    with opened(tree.root / "open", os.O_WRONLY | os.O_CREAT) as file:
        os.write(file, b"synced")
        os.fsync(file)
        kill_daemon(tree)
    tree.end()
    proxy.release()
    return proxied


EXPECTED = {f"{number}": b"%d" % number for number in range(30) if number not in (1, 2)} | {
    "renamed": b"1",
    "open": b"synced",
}


@pytest.mark.parametrize("named", [True, False])
def test_what_a_dead_daemon_left_is_sent(left_behind: Proxied, named: bool) -> None:
    tree, _, foreign = left_behind
    done = tree.command("recover", *([tree.url] if named else []))
    assert "sent in" in done.stdout
    assert contents(foreign) == EXPECTED
    assert stored.left_on_host(tree.places) == {}
    assert "nothing is owed" in tree.command("recover", *([tree.url] if named else [])).stdout
    tree.mount()
    assert (tree.root / "0").stat().st_mode & 0o777 == 0o600


def test_a_route_of_the_configuration(left_behind: Proxied) -> None:
    tree, _, foreign = left_behind
    (tree.places / "config.toml").write_text(
        f'[backend.store]\nurl = "{tree.url}"\n[[route]]\npath = "/data"\ntiers = ["store"]\n'
    )
    done = tree.command("recover", "/other", check=False)
    assert done.returncode == 1
    assert "/data" in done.stderr
    tree.command("recover", "/data")
    assert contents(foreign) == EXPECTED


def test_a_store_that_is_out_of_reach_keeps_everything(left_behind: Proxied) -> None:
    tree, proxy, foreign = left_behind
    proxy.fail(10_000, status=503)
    done = tree.command("recover", tree.url, "-o", "timeout=2s", "--timeout", "10", check=False, timeout=120)
    assert done.returncode == 1
    assert "stay journaled" in done.stderr
    assert stored.left_on_host(tree.places)["pending"]
    proxy.heal()
    tree.command("recover")
    assert contents(foreign) == EXPECTED


def test_what_a_living_process_uploads_is_left_to_it(proxied: Proxied) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(10_000, hold=True, method="PUT")
    (tree.root / "f").write_bytes(b"of the living")
    wait_for(lambda: proxy.held)
    done = tree.command("recover")
    (pid,) = tree.daemon_pids()
    assert f"wait for process {pid}" in done.stdout
    assert len(list((tree.places / "cache" / ".staging").iterdir())) == 1
    proxy.release()
    tree.umount()
    assert contents(foreign) == {"f": b"of the living"}


def test_what_was_not_closed_is_swept(proxied: Proxied) -> None:
    """Nothing is owed, and still a file lies in staging."""
    tree, _, foreign = proxied
    program = (
        "import fsspec, os, sys; fs, root = fsspec.url_to_fs(sys.argv[1]); file = fs.open(root + '/f', 'wb'); "
        "file.write(b'x' * 3_000_000); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, f"tier::{tree.url}"], env=tree.env, check=False)
    staging = tree.places / "cache" / ".staging"
    assert len(list(staging.iterdir())) == 1
    done = tree.command("recover")
    assert "1 files were removed that had not been closed" in done.stdout
    assert list(staging.iterdir()) == []
    assert contents(foreign) == {}


WRITER = """
import asyncio, os, sys, time
from fsdriver.config import from_url
from fsdriver.engine import open_engine
from fsdriver.entry import Changes
from fsdriver.runtime import run
engine = open_engine(from_url(sys.argv[1]), write="back")
route, path = engine.route("/open")
staged = route.new_file()
run(route.create(path, staged, Changes()))
os.write(staged.fileno(), b"being written")
run(route.fsync(path, staged))
for uploader in engine.uploaders.values():
    run(uploader.close())
print("synced", flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_what_a_living_process_has_open_is_left_to_it(proxied: Proxied) -> None:
    tree, _, foreign = proxied
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tree.url], env=tree.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout.readline() == b"synced\n"
            done = tree.command("recover", tree.url)
            assert "1 files that living processes have open" in done.stdout
            assert contents(foreign) == {}
            assert len(list((tree.places / "cache" / ".staging").iterdir())) == 1
        finally:
            writer.kill()
    tree.command("recover", tree.url)
    assert contents(foreign) == {"open": b"being written"}


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Service]:
    """A server that may be stopped."""
    server = SeaweedFS(tmp_path / "s3")
    yield server.start()
    server.stop()


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("how", ["recover", "mount"])
def test_ten_thousand_files_are_recovered(trees: TreeMaker, own_server: S3Service, record_property, how: str) -> None:
    """A daemon is killed that had 10,000 files to send, to a store that did not answer."""
    tree = trees(f"s3://{own_server.create_bucket()}/p", own_server.environment(), "ttl=1h")
    tree.mount()
    (tree.root / "d").mkdir()
    tree.command("sync", str(tree.root))
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        for number in range(10_000):
            (tree.root / "d" / f"{number}").write_bytes(b"%d" % number * 100)
        kill_daemon(tree)
        tree.end()
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    began = time.monotonic()

    def note(what: str) -> None:
        record_property(
            f"reliability:recovery:10,000 pending files, {what}, seconds", round(time.monotonic() - began, 1)
        )

    if how == "recover":
        tree.command("recover", timeout=3600)
    else:
        tree.mount()
        assert len(os.listdir(tree.root / "d")) == 10_000
        assert (tree.root / "d" / "77").read_bytes() == b"77" * 100
        note("mounted and listed")
        tree.command("sync", str(tree.root), timeout=3600)
    note("all in the store after a mount" if how == "mount" else "all in the store after recover")
    tree.end()
    assert len(stored.bucket_names(own_server.client(), tree.url)) == 10_000
    assert stored.left_on_host(tree.places) == {}
