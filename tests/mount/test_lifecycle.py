"""Mounting, unmounting, and what goes wrong with both."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import fails_with, wait_for


def bucket_of(tree) -> Path:
    return Path(tree.url.removeprefix("file://"))


def test_the_caller_returns_when_the_tree_is_usable(own_tree):
    own_tree.mount()
    (own_tree.root / "f").write_text("at once")
    (pid,) = own_tree.daemon_pids()
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert own_tree.url.encode() in arguments
    assert os.fsencode(own_tree.root) in arguments
    status = own_tree.status()
    assert status["state"] == "mounted"
    assert status["pid"] == pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_mount_whose_caller_goes_away(proxied, number: signal.Signals) -> None:
    """Neither a daemon nor a dead mount stays behind."""
    tree, proxy, _ = proxied
    proxy.fail(100, hold=True)
    command = [sys.executable, "-m", "fsdriver", "mount", tree.url, str(tree.root)]
    with subprocess.Popen(command, env=tree.env, stdin=subprocess.DEVNULL, start_new_session=True) as caller:
        wait_for(lambda: proxy.held)
        caller.send_signal(number)
    assert caller.returncode == (130 if number == signal.SIGINT else -number)
    proxy.release()
    wait_for(lambda: not tree.daemon_pids())
    assert os.listdir(tree.root) == []
    tree.mount()


def test_umount_uploads_what_is_pending(local_tree):
    tree = local_tree.mount()
    for number in range(20):
        (tree.root / f"{number}").write_text(str(number))
    tree.umount()
    assert not os.path.ismount(tree.root)
    assert tree.daemon_pids() == []
    assert [(bucket_of(tree) / f"{number}").read_text() for number in range(20)] == [str(n) for n in range(20)]


def test_plain_umount_is_followed_by_the_upload(local_tree):
    tree = local_tree.mount()
    (tree.root / "f").write_text("content")
    subprocess.run(["umount", tree.root], check=True)
    wait_for(lambda: not tree.daemon_pids())
    assert (bucket_of(tree) / "f").read_text() == "content"


def test_umount_is_not_about_what_another_mount_of_this_user_owes(trees, proxied):
    other, proxy, _ = proxied
    shared = {name: other.env[name] for name in ("FSDRIVER_CACHE_DIR", "FSDRIVER_STATE_DIR", "FSDRIVER_RUNTIME_DIR")}
    tree = trees(None, shared).mount()
    other.mount()
    proxy.fail(100, hold=True, method="PUT")
    (other.root / "f").write_text("waits for its store")
    (tree.root / "g").write_text("content")
    wait_for(lambda: other.status()["pending"] == 1)
    tree.umount()
    assert (bucket_of(tree) / "g").read_text() == "content"
    proxy.release()
    other.umount()


def test_umount_of_a_busy_tree_says_so(local_tree):
    tree = local_tree.mount()
    with open(tree.root / "f", "w"):
        done = tree.command("umount", str(tree.root), check=False)
    assert done.returncode == 1
    assert "busy" in done.stderr
    assert os.path.ismount(tree.root)
    tree.umount()


def test_umount_of_a_hung_daemon(local_tree):
    """It says so, and waits for nothing that the daemon would have to answer; what was acknowledged is sent later."""
    tree = local_tree.mount("ttl=0s")
    (tree.root / "f").write_text("acknowledged")
    (pid,) = tree.daemon_pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        done = tree.command("mount", tree.url, str(tree.root), *_given(tree), check=False)
        assert done.returncode != 0
        assert "busy" in done.stderr
        done = tree.command("umount", str(tree.root), check=False)
        assert done.returncode == 1
        assert f"process {pid}" in done.stderr
        assert "--force" in done.stderr
        assert str(tree.root) in Path("/proc/self/mountinfo").read_text()
        done = tree.command("umount", "--force", str(tree.root), check=False)
        assert done.returncode == 1
        assert "is detached" in done.stderr
        assert os.listdir(tree.root) == []
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not tree.daemon_pids())
    tree.mount()
    assert (tree.root / "f").read_text() == "acknowledged"


def test_umount_of_what_is_not_mounted(trees):
    tree = trees()
    done = tree.command("umount", str(tree.root), check=False)
    assert done.returncode != 0
    assert "no fsdriver tree" in done.stderr


def test_a_control_socket_that_was_deleted(local_tree):
    tree = local_tree.mount()
    (tree.root / "f").write_text("content")
    for path in (tree.places / "run").iterdir():
        path.unlink()
    done = tree.command("status", str(tree.root), check=False)
    assert done.returncode == 1
    assert "FSDRIVER_RUNTIME_DIR" in done.stderr
    assert f"umount {tree.root}" in done.stderr
    subprocess.run(["umount", tree.root], check=True)
    wait_for(lambda: not tree.daemon_pids())
    assert (bucket_of(tree) / "f").read_text() == "content"


def test_sigterm_uploads_and_unmounts(local_tree):
    tree = local_tree.mount()
    (tree.root / "f").write_text("content")
    (pid,) = tree.daemon_pids()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not tree.daemon_pids())
    assert not os.path.ismount(tree.root)
    assert (bucket_of(tree) / "f").read_text() == "content"


def _given(tree) -> list[str]:
    return ["-o", ",".join(tree.options)] if tree.options else []


def test_the_foreground_tells_the_service_manager(local_tree, tmp_path):
    tree = local_tree
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "fsdriver", "mount", tree.url, str(tree.root), *_given(tree), "--foreground"],
            env={**tree.env, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert manager.recv(4096).startswith(b"READY=1\n")
            assert os.path.ismount(tree.root)
            daemon.send_signal(signal.SIGTERM)
            assert manager.recv(4096).startswith(b"STOPPING=1")
            _, log = daemon.communicate(timeout=30)
        finally:
            daemon.kill()
            daemon.wait()
            daemon.stderr.close()
    assert daemon.returncode == 0
    assert "is mounted at" in log


def test_a_dead_daemon_is_healed_and_loses_nothing(local_tree):
    tree = local_tree.mount()
    (tree.root / "f").write_text("acknowledged")
    (pid,) = tree.daemon_pids()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not tree.daemon_pids())
    with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
        os.statvfs(tree.root)
    tree.mount()
    assert (tree.root / "f").read_text() == "acknowledged"
    tree.umount()
    assert (bucket_of(tree) / "f").read_text() == "acknowledged"


def test_umount_of_a_dead_daemon_explains(local_tree):
    tree = local_tree.mount()
    (pid,) = tree.daemon_pids()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not tree.daemon_pids())
    for command in ("status", "sync", "refresh"):
        done = tree.command(command, str(tree.root), check=False)
        assert done.returncode == 1
        assert "its daemon is gone" in done.stderr
        assert f"fsdriver umount {tree.root}" in done.stderr
    done = tree.command("umount", str(tree.root), check=False)
    assert "the daemon was gone" in done.stderr
    assert os.listdir(tree.root) == []


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: root.rmdir(), "does not exist"),
        (lambda root: (root.rmdir(), root.write_text("")), "not a directory"),
    ],
    ids=["missing", "a file"],
)
def test_bad_mountpoints(trees, prepare, words):
    tree = trees()
    prepare(tree.root)
    done = tree.command("mount", tree.url, str(tree.root), check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_a_busy_mountpoint(trees):
    tree = trees().mount()
    done = tree.command("mount", tree.url, str(tree.root), check=False)
    assert done.returncode != 0
    assert "busy" in done.stderr


def test_a_second_mount_of_one_store_is_refused(trees, tmp_path):
    tree = trees().mount()
    other = tmp_path / "other"
    other.mkdir()
    done = tree.command("mount", tree.url, str(other), check=False)
    assert done.returncode != 0
    assert "already" in done.stderr
    assert not os.path.ismount(other)


def test_unknown_options_are_explained(trees):
    tree = trees()
    done = tree.command("mount", tree.url, str(tree.root), "-o", "alow_other", check=False)
    assert done.returncode != 0
    assert "allow_other" in done.stderr


def test_a_missing_bucket(trees, s3_server):
    tree = trees("s3://there-is-none-of-that-name", s3_server.environment())
    done = tree.command("mount", tree.url, str(tree.root), check=False)
    assert done.returncode != 0
    assert "there-is-none-of-that-name" in done.stderr
    assert not os.path.ismount(tree.root)


def test_wrong_credentials(trees, s3_server):
    wrong = {**s3_server.environment(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    tree = trees(f"s3://{s3_server.create_bucket()}", wrong)
    done = tree.command("mount", tree.url, str(tree.root), check=False)
    assert done.returncode != 0
    assert "check access_key_id and secret_access_key" in done.stderr
    assert not os.path.ismount(tree.root)


def test_an_unreachable_endpoint(trees, s3_server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    tree = trees("s3://bucket", {**s3_server.environment(), "AWS_ENDPOINT_URL": nobody}, "timeout=3s")
    done = tree.command("mount", tree.url, str(tree.root), "-o", "timeout=3s", check=False)
    assert done.returncode != 0
    assert nobody.removeprefix("http://") in done.stderr
    assert not os.path.ismount(tree.root)


def test_read_only_mount(local_tree):
    tree = local_tree
    (bucket_of(tree) / "f").write_text("x")
    tree.mount("ro")
    assert (tree.root / "f").read_text() == "x"
    with pytest.raises(OSError, match="Read-only"):
        (tree.root / "f").write_text("y")
    with pytest.raises(OSError, match="Read-only"):
        (tree.root / "new").mkdir()


def test_read_only_credentials(trees, s3_server):
    bucket = s3_server.create_bucket()
    s3_server.client().put_object(Bucket=bucket, Key="f", Body=b"x")
    keys = {
        "AWS_ACCESS_KEY_ID": s3_server.reader_access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.reader_secret_key,
    }
    tree = trees(f"s3://{bucket}", {**s3_server.environment(), **keys})
    tree.mount("read_only=true")
    assert (tree.root / "f").read_bytes() == b"x"
    with pytest.raises(OSError, match="Read-only"):
        (tree.root / "g").write_bytes(b"y")


@pytest.mark.parametrize("wanted", ["on", "off"])
def test_passthrough(trees, wanted):
    tree = trees().mount(f"passthrough={wanted}")
    status = tree.status()
    if wanted == "on" and status["passthrough"] != "on":
        pytest.skip(f"this kernel or container does not allow passthrough: {status['passthrough']}")
    before = status["requests"]
    path = tree.root / "f"
    path.write_bytes(b"x" * 4_000_000)  # small files keep their pages instead
    assert path.read_bytes() == b"x" * 4_000_000
    after = tree.status()["requests"]
    moved = {name: after.get(name, 0) - before.get(name, 0) for name in ("READ", "WRITE")}
    assert (moved == {"READ": 0, "WRITE": 0}) == (wanted == "on")
    assert tree.status()["passthrough"].startswith(wanted)


def test_small_files_are_read_again_from_kept_pages(trees):
    tree = trees().mount("ttl=1h")
    path = tree.root / "small"
    path.write_bytes(b"x" * 100_000)
    tree.command("sync", str(tree.root))
    assert path.read_bytes() == b"x" * 100_000
    before = tree.status()["requests"]
    for _ in range(2):
        assert path.read_bytes() == b"x" * 100_000
    after = tree.status()
    moved = {name: after["requests"].get(name, 0) - before.get(name, 0) for name in ("OPEN", "READ")}
    assert moved == {"OPEN": 2, "READ": 0}
    assert after["cache"]["open"] == 0
    with path.open("rb", buffering=0) as file:
        assert tree.status()["cache"]["open"] == 0
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == b"x" * 100_000
        assert tree.status()["cache"]["open"] == 1
    path.write_bytes(b"y" * 100_000)
    assert path.read_bytes() == b"y" * 100_000


def test_everything_survives_a_remount_with_nothing_kept(own_tree):
    own_tree.mount()
    root = own_tree.root
    (root / "d").mkdir(mode=0o750)
    (root / "d" / "f").write_text("content")
    os.link(root / "d" / "f", root / "d" / "hard")
    (root / "link").symlink_to("d/f")
    (root / "empty").mkdir()
    os.mkfifo(root / "fifo", 0o622)
    os.setxattr(root / "d" / "f", "user.colour", b"blue")
    os.chmod(root / "d" / "f", 0o4711)
    os.chown(root / "d" / "f", 7, 8, follow_symlinks=False)
    os.utime(root / "d" / "f", ns=(11, 1_000_000_000_000_000_022))
    os.chown(root / "link", 9, 9, follow_symlinks=False)
    os.chmod(root / "d", 0o711)
    os.utime(root / "d", ns=(33, 1_000_000_000_000_000_044))
    os.utime(root / "empty", ns=(55, 1_000_000_000_000_000_066))

    def seen() -> dict:
        found = {}
        for path in ["d", "d/f", "d/hard", "link", "empty", "fifo"]:
            status = (root / path).lstat()
            found[path] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino, status.st_size,
                status.st_nlink if path.startswith("d/") else 0,
            )  # fmt: skip
        found["target"] = os.readlink(root / "link")
        found["colour"] = os.getxattr(root / "d" / "f", "user.colour")
        found["content"] = (root / "d" / "hard").read_text()
        found["names"] = sorted(os.listdir(root))
        return found

    before = seen()
    own_tree.remount_elsewhere()
    assert seen() == before


def test_a_foreign_change_shows_after_the_ttl(local_tree):
    tree = local_tree
    (bucket_of(tree) / "f").write_text("old")
    tree.mount("ttl=0.2s,negative_ttl=0s")
    with open(tree.root / "f") as file:
        assert file.read() == "old"
        (bucket_of(tree) / "new").write_text("changed")
        os.replace(bucket_of(tree) / "new", bucket_of(tree) / "f")
        wait_for(lambda: (tree.root / "f").read_text() == "changed")
        file.seek(0)
        assert file.read() == "old"
    (bucket_of(tree) / "g").write_text("fresh")
    wait_for((tree.root / "g").exists)


def test_refresh_forgets_what_is_cached(local_tree):
    tree = local_tree.mount("ttl=1h,negative_ttl=1h")
    (bucket_of(tree) / "f").write_text("one")
    assert (tree.root / "f").read_text() == "one"
    assert not (tree.root / "g").exists()
    (bucket_of(tree) / "f.new").write_text("second")
    os.replace(bucket_of(tree) / "f.new", bucket_of(tree) / "f")
    (bucket_of(tree) / "g").write_text("new")
    tree.command("refresh", str(tree.root))
    assert (tree.root / "f").read_text() == "second"
    assert (tree.root / "g").read_text() == "new"


WRITE_BESIDE = """
import sys
from fsdriver.config import from_url
from fsdriver.engine import open_engine
from fsdriver.runtime import run
engine = open_engine(from_url(sys.argv[1]))
route, _ = engine.route("/")
run(route.publish("f", b"from beside"))
engine.close()
"""


def test_another_process_tells_the_daemon_what_it_changed(own_tree):
    own_tree.mount("ttl=1h,negative_ttl=1h")
    path = own_tree.root / "f"
    path.write_text("first")
    own_tree.command("sync", str(own_tree.root))
    assert path.read_text() == "first"
    subprocess.run([sys.executable, "-c", WRITE_BESIDE, own_tree.url], env=own_tree.env, check=True, timeout=60)
    assert path.read_text() == "from beside"


def test_a_signal_interrupts_a_waiting_lookup(trees, s3_server):
    """A caller that is killed while the store hangs goes away at once."""
    from tests.servers import FaultyProxy

    bucket = s3_server.create_bucket()
    with FaultyProxy(s3_server.endpoint) as proxy:
        tree = trees(f"s3://{bucket}", {**s3_server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}).mount()
        proxy.fail(50, hang=True, match="slow")
        child = subprocess.Popen([sys.executable, "-c", "import os,sys; os.stat(sys.argv[1])", str(tree.root / "slow")])
        wait_for(lambda: tree.status()["in_flight"] > 0)
        child.kill()
        assert child.wait(timeout=10) == -signal.SIGKILL
        with contextlib.suppress(OSError):
            assert tree.status()["state"] == "mounted"
