"""The daemon under pressure: ended while busy, killed, a store that stops, a thousand waiting readers, few descriptors, leaks."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdriver.testing.servers import SeaweedFS
from tests.mount.conftest import (
    MountedTree,
    TreeMaker,
    another_writer,
    fails_with,
    kill_daemon,
    machine_lock,
    opened,
    wait_for,
)

MIB = 1 << 20
OPERATIONS = int(os.environ.get("FSDRIVER_OPERATIONS", "20000"))
"""Of the tests that look for leaks; a million on demand."""


def bucket_of(tree: MountedTree) -> Path:
    return Path(tree.url.removeprefix("file://"))


CREATE = os.O_CREAT | os.O_WRONLY


# -- ended while busy -----------------------------------------------------------------------------------------------------


def test_sigterm_while_files_are_open_and_uploads_pending(own_tree: MountedTree, request) -> None:
    """What was written is in the bucket when the daemon has ended, whether or not it was closed."""
    foreign = another_writer(own_tree, request)
    own_tree.mount()
    for number in range(30):
        (own_tree.root / f"{number}").write_bytes(b"%d" % number * 10_000)
    with opened(own_tree.root / "open", CREATE) as file, opened(own_tree.root / "0", os.O_RDONLY) as reader:
        os.write(file, b"written, not closed")
        (pid,) = own_tree.daemon_pids()
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not own_tree.daemon_pids())
        with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
            os.fstat(file)
        with contextlib.suppress(OSError):
            os.read(reader, 100)
    assert not os.path.ismount(own_tree.root)
    assert os.listdir(own_tree.root) == []
    assert {key: foreign.get(key) for key in map(str, range(30))} == {str(n): b"%d" % n * 10_000 for n in range(30)}
    assert foreign.get("open") == b"written, not closed"


def test_a_lazy_umount_lasts_until_the_last_file_is_closed(own_tree: MountedTree, request) -> None:
    foreign = another_writer(own_tree, request)
    own_tree.mount()
    (own_tree.root / "read").write_bytes(b"read")
    with (own_tree.root / "f").open("wb", buffering=0) as file, (own_tree.root / "read").open("rb") as reader:
        file.write(b"before, ")
        subprocess.run(["umount", "-l", own_tree.root], check=True)
        assert not os.path.ismount(own_tree.root)
        assert len(own_tree.daemon_pids()) == 1
        file.write(b"and after")
        os.fsync(file.fileno())
        assert reader.read() == b"read"
    wait_for(lambda: not own_tree.daemon_pids())
    assert foreign.get("f") == b"before, and after"
    assert foreign.get("read") == b"read"
    own_tree.mount()
    assert (own_tree.root / "f").read_bytes() == b"before, and after"


# -- the daemon dies ------------------------------------------------------------------------------------------------------


def test_a_killed_daemon_loses_nothing_that_was_promised(own_tree: MountedTree, request) -> None:
    """Closed and synced files are there again; open files and directories say ENOTCONN; the same command heals the mount."""
    foreign = another_writer(own_tree, request)
    own_tree.mount()
    root = own_tree.root
    (root / "d").mkdir()
    for number in range(50):
        (root / "d" / f"{number}").write_bytes(b"%d" % number * 1000)
    (root / "d" / "0").rename(root / "moved")
    (root / "d" / "1").unlink()
    with opened(root / "synced", CREATE) as file, opened(root / "d" / "2", os.O_RDWR) as other:
        os.write(file, b"synced")
        os.fsync(file)
        os.write(other, b"changed and synced")
        os.fsync(other)
        kill_daemon(own_tree)
        for call in (lambda: os.fstat(file), lambda: os.listdir(root), lambda: os.stat(root / "moved")):
            with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
                call()
    own_tree.mount()
    expected = {f"d/{n}": b"%d" % n * 1000 for n in range(3, 50)} | {
        "moved": b"0" * 1000, "synced": b"synced", "d/2": b"changed and synced" + (b"2" * 1000)[18:],
    }  # fmt: skip
    assert {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()} == expected
    own_tree.umount()
    assert {key: foreign.get(key) for key in foreign.keys()} == expected  # noqa: SIM118


# -- the store stops ------------------------------------------------------------------------------------------------------


def test_a_stopped_store(trees: TreeMaker, tmp_path: Path) -> None:
    """Reads of what is not here fail at their deadline; all else goes on; nothing is lost when the store comes back."""
    with SeaweedFS(tmp_path / "weed") as server:
        client, bucket = server.client(), server.create_bucket()
        for name in ("cold", "warm"):
            client.put_object(Bucket=bucket, Key=f"d/{name}", Body=name.encode() * 1000)
        tree = trees(f"s3://{bucket}", server.environment()).mount("timeout=3s", "ttl=1h")
        assert (tree.root / "d" / "warm").read_bytes() == b"warm" * 1000
        assert sorted(os.listdir(tree.root / "d")) == ["cold", "warm"]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with fails_with(errno.EIO, errno.ETIMEDOUT):
                (tree.root / "d" / "cold").read_bytes()
            with fails_with(errno.EIO, errno.ETIMEDOUT):
                os.stat(tree.root / "never seen")
            assert (tree.root / "d" / "warm").read_bytes() == b"warm" * 1000
            assert sorted(os.listdir(tree.root / "d")) == ["cold", "warm"]
            (tree.root / "d" / "written meanwhile").write_bytes(b"kept")
            assert (tree.root / "d" / "written meanwhile").read_bytes() == b"kept"
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wait_for(lambda: (tree.root / "d" / "cold").read_bytes() == b"cold" * 1000)
        tree.command("sync", str(tree.root))
        assert client.get_object(Bucket=bucket, Key="d/written meanwhile")["Body"].read() == b"kept"
        tree.umount()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_program_whose_read_waits_for_the_store(proxied, number: signal.Signals) -> None:
    """Long before the deadline; the next reader gets the bytes."""
    tree, proxy, foreign = proxied
    foreign.put("slow", b"x" * MIB)
    tree.mount("timeout=170s")
    assert os.listdir(tree.root) == ["slow"]
    proxy.fail(1000, hold=True, method="GET", match="/slow")
    with subprocess.Popen(["cat", tree.root / "slow"], stdout=subprocess.DEVNULL) as reader:
        wait_for(lambda: proxy.held)
        reader.send_signal(number)
        assert reader.wait(60) == -number
    proxy.release()
    wait_for(lambda: tree.status()["in_flight"] == 0)
    assert (tree.root / "slow").read_bytes() == b"x" * MIB


HANDLED = """
import os, signal, sys
print("begins", flush=True)
try:
    os.stat(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_handled_signal_ends_a_lookup_that_waits_for_the_store(proxied) -> None:
    """The kernel sends INTERRUPT, the daemon answers EINTR, and the program goes on."""
    tree, proxy, foreign = proxied
    foreign.put("slow", b"x" * 10)
    tree.mount("timeout=170s")
    proxy.fail(1000, hold=True, match="slow")
    program = [sys.executable, "-c", HANDLED, tree.root / "slow"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "begins\n"
        wait_for(lambda: proxy.held)
        reader.send_signal(signal.SIGINT)
        assert reader.stdout.readline() == "interrupted\n"
    wait_for(lambda: tree.status()["in_flight"] == 0)
    proxy.release()
    assert (tree.root / "slow").stat().st_size == 10


def test_a_thousand_readers_wait_and_the_mount_goes_on(proxied) -> None:
    tree, proxy, foreign = proxied
    foreign.put("f/warm", b"warm")
    with ThreadPoolExecutor(8) as putting:
        list(putting.map(lambda number: foreign.put(f"f/{number}", b"%d" % number * 100), range(1000)))
    tree.mount("timeout=170s", "ttl=1h")
    assert len(os.listdir(tree.root / "f")) == 1001
    assert (tree.root / "f" / "warm").read_bytes() == b"warm"
    proxy.fail(100_000, hold=True, method="GET", match="/p/f/")
    seen: dict[int, bytes] = {}

    def read(number: int) -> None:
        descriptor = os.open(tree.root / "f" / f"{number}", os.O_RDONLY)
        try:
            seen[number] = os.pread(descriptor, 1000, 0)
        finally:
            os.close(descriptor)

    stack = threading.stack_size(256 << 10)
    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(1000)]
    threading.stack_size(stack)
    for reader in readers:
        reader.start()
    wait_for(lambda: tree.status()["in_flight"] >= 1000)
    assert len(os.listdir(tree.root / "f")) == 1001
    assert (tree.root / "f" / "warm").read_bytes() == b"warm"
    assert (tree.root / "f" / "17").stat().st_size == 200
    (tree.root / "new").write_bytes(b"new")
    assert (tree.root / "new").read_bytes() == b"new"
    (tree.root / "new").unlink()
    assert not seen
    proxy.release()
    for reader in readers:
        reader.join(120)
    assert seen == {number: b"%d" % number * 100 for number in range(1000)}
    assert tree.status()["in_flight"] == 0


# -- limits ---------------------------------------------------------------------------------------------------------------


def test_the_soft_limit_of_descriptors_is_raised(trees: TreeMaker) -> None:
    tree = trees()
    command = [sys.executable, "-m", "fsdriver", "mount", tree.url, str(tree.root)]
    subprocess.run(["prlimit", "--nofile=100:", *command], env=tree.env, check=True, timeout=60, capture_output=True)
    (pid,) = tree.daemon_pids()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert soft == hard > 100


# -- leaks ----------------------------------------------------------------------------------------------------------------


def drop_dentries() -> None:
    """Let the kernel forget names and inodes it does not use: it tells the daemon with FORGET."""
    with machine_lock("drop-caches"):
        Path("/proc/sys/vm/drop_caches").write_text("2")


def usage(tree: MountedTree) -> dict[str, int]:
    (pid,) = tree.daemon_pids()
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "resident": resident}


@pytest.mark.timeout(180 + OPERATIONS / 50)
@pytest.mark.parametrize("passthrough", ["on", "off"])
def test_nothing_leaks(trees: TreeMaker, passthrough: str) -> None:
    tree = trees().mount(f"passthrough={passthrough}", "ttl=1h")
    root = tree.root
    (root / "kept").mkdir()
    for number in range(200):
        (root / "kept" / f"{number}").write_bytes(b"x")

    def work(operations: int) -> None:
        """Ten operations a round."""
        for number in range(operations // 10):
            path, kept = root / f"f{number % 50}", root / "kept" / f"{number % 200}"
            path.write_bytes(b"some bytes")
            path.rename(root / "renamed")
            (root / "renamed").read_bytes()
            os.link(root / "renamed", root / "hard")
            (root / "hard").unlink()
            (root / "renamed").unlink()
            os.listdir(root / "kept")
            kept.stat()
            kept.read_bytes()
            (root / f"missing {number}").exists()

    def settle() -> None:
        tree.command("sync", str(root), timeout=170)
        wait_for(lambda: tree.status()["open_files"] == 0)

        def forgotten() -> bool:
            drop_dentries()
            return tree.status()["nodes"] <= 3

        wait_for(forgotten)

    work(OPERATIONS // 4)
    settle()
    before = usage(tree)
    work(OPERATIONS)
    settle()
    after = usage(tree)
    status = tree.status()
    assert (status["open_files"], status["in_flight"], status["errors"]) == (0, 0, 0)
    wait_for(lambda: tree.status()["passthrough_files"] == 0)
    # A file that was just closed is kept open for a moment, for the next open of it.
    wait_for(lambda: usage(tree)["descriptors"] <= before["descriptors"] + 8)
    assert after["resident"] <= before["resident"] + 16 * 1024
    assert len(list((tree.places / "cache" / ".staging").iterdir())) == 0
    assert sorted(os.listdir(root / "kept")) == sorted(map(str, range(200)))


# -- what a killed daemon leaves -------------------------------------------------------------------------------------------


def test_files_that_were_never_closed_do_not_accumulate(trees: TreeMaker) -> None:
    tree = trees()
    staging = tree.places / "cache" / ".staging"
    for _ in range(3):
        tree.mount()
        with contextlib.ExitStack() as stack:
            for number in range(10):
                file = stack.enter_context(opened(tree.root / f"never closed {number}", CREATE))
                os.write(file, b"x" * 100_000)
            wait_for(lambda: len(list(staging.iterdir())) == 10)
            kill_daemon(tree)
    tree.mount()
    wait_for(lambda: not list(staging.iterdir()))
    assert os.listdir(tree.root) == []
    (tree.root / "f").write_bytes(b"works")
    tree.umount()
    assert (bucket_of(tree) / "f").read_bytes() == b"works"


def test_uploads_in_parts_of_a_killed_daemon_are_ended(proxied, s3_server) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    bucket = tree.url.split("/")[2]
    client = s3_server.client()
    foreign_upload = client.create_multipart_upload(Bucket=bucket, Key="p/of another program")["UploadId"]
    proxy.fail(4, hang=True, method="PUT", match="partNumber")
    data = os.urandom(70 * MIB)
    (tree.root / "large").write_bytes(data)
    wait_for(lambda: proxy.count("PUT", "partNumber") >= 4)
    assert len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])) == 2
    kill_daemon(tree)
    tree.mount()
    tree.command("sync", str(tree.root), timeout=170)
    assert foreign.get("large") == data

    def left() -> list[str]:
        return [one["UploadId"] for one in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    wait_for(lambda: left() == [foreign_upload])
