"""A user's Python process reads what a mount of root has cached, if that user may read it through the mount."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fsdriver.backends import open_backend
from fsdriver.cache import ObjectKey, passing
from fsdriver.config import BackendConfig
from tests.mount.conftest import MountedTree, TreeMaker, kill_daemon
from tests.mount.foreign import Foreign
from tests.mount.users import UID, User
from tests.servers import FaultyProxy

GROUP = 54321
LARGE = 3 << 20
"""Bytes of an object that is fetched in parts."""

READ = """
import hashlib, sys, fsspec
from fsdriver.routes import lenders
lenders.PATIENCE = 30  # however busy this machine is
fs, path = fsspec.url_to_fs(sys.argv[1])
part = fs.cat_file(path, 5, 25)
with fs.open(path) as file:
    first = file.read(10)
    print("opened", flush=True)
    sys.stdin.readline()
    data = first + file.read()
assert part == data[5:25]
print(hashlib.sha256(data).hexdigest())
"""


@dataclass
class Sharing:
    """A mount of root over a store behind a counting proxy, and a user who can reach the same store."""

    tree: MountedTree
    proxy: FaultyProxy
    foreign: Foreign
    user: User
    directory: Path
    environment: dict[str, str]

    def add(self, name: str, data: bytes) -> None:
        """A file that is in the store, and sealed in the cache of root."""
        path = self.tree.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        self.tree.command("sync", str(self.tree.root))
        assert path.read_bytes() == data
        assert self.sealed(len(data))

    def sealed(self, size: int) -> list[Path]:
        """Files of a size in the cache of root."""
        files = (self.tree.places / "cache" / "objects").rglob("*")
        return [path for path in files if path.is_file() and path.stat().st_size == size]

    def kept(self, size: int) -> list[Path]:
        """Files of a size in the user's own cache."""
        return [one for one in (self.user.home / "cache").rglob("*") if one.is_file() and one.stat().st_size == size]

    def start(self, name: str, groups: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        return self.user.start("-c", READ, f"tier::{self.tree.url}/{name}", groups=groups, **self.environment)

    def read(self, name: str, groups: tuple[int, ...] = ()) -> str:
        """Digest of what the user reads."""
        done = self.user.run("-c", READ, f"tier::{self.tree.url}/{name}", groups=groups, **self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def fetched(self, name: str) -> int:
        return self.proxy.count("GET", f"/p/{name}")

    def lent(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.tree.status()["lent"]
        return answer

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A connection of root to the socket that answers users."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(30)
            connection.connect(self.lent()["sockets"][0])
            yield connection

    def key(self, name: str, version: str, size: int) -> ObjectKey:
        """What the cache knows an object as."""
        backend, prefix = open_backend("s3", BackendConfig(url=self.tree.url, endpoint=self.proxy.endpoint))
        return ObjectKey(backend.identity, f"{prefix}/{name}".lstrip("/"), version, size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def sharing(fuse, user, s3_server) -> Iterator[Sharing]:
    """Mounted with ``allow_other``, where the user can get to."""
    base = Path(tempfile.mkdtemp(prefix="fsdriver-shared-"))
    base.chmod(0o755)
    maker = TreeMaker(base)
    with FaultyProxy(s3_server.endpoint) as proxy:
        environment = {**s3_server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}
        runtime = {"FSDRIVER_RUNTIME_DIR": str(base / "run")}
        tree = maker(f"s3://{s3_server.create_bucket()}/p", environment | runtime, "allow_other").mount()
        foreign = Foreign(tree, s3_server.client())
        places = {"FSDRIVER_SHARED_DIR": str(base / "run" / "shared")}
        yield Sharing(tree, proxy, foreign, user, base, environment | places)
        proxy.release()
        maker.end()
    shutil.rmtree(base)


@pytest.mark.parametrize("size", [10_000, LARGE])
def test_a_cached_file_is_read_without_fetching_or_keeping_it(sharing, size):
    data = os.urandom(size)
    sharing.add("train/a", data)
    asked = sharing.fetched("train/a")
    assert sharing.read("train/a") == digest(data)
    assert sharing.fetched("train/a") == asked
    assert sharing.lent()["served"] >= 1
    assert not sharing.kept(size)


ACCESS = {
    "closed to others": (0o600, 0, 0o755, (), False),
    "open to others": (0o604, 0, 0o755, (), True),
    "open to others, not to the group": (0o604, GROUP, 0o755, (GROUP,), False),
    "open to the group": (0o640, GROUP, 0o755, (GROUP,), True),
    "open to a group of others": (0o640, GROUP, 0o755, (), False),
    "in a directory that may be listed only": (0o644, 0, 0o744, (), False),
    "in a directory that may be searched only": (0o644, 0, 0o701, (), True),
}
"""Mode and group of a file, mode of its directory, groups of the user; whether that may read it."""


def test_the_kernel_and_the_daemon_grant_the_same(sharing):
    data = os.urandom(5_000)
    for name, (mode, group, directory, _, _) in ACCESS.items():
        sharing.add(f"{name}/f", data)
        path = sharing.tree.root / name / "f"
        os.chown(path, 0, group)
        path.chmod(mode)
        path.parent.chmod(directory)
    sharing.tree.command("sync", str(sharing.tree.root))
    for name, (_, _, _, groups, granted) in ACCESS.items():
        program = f"open({str(sharing.tree.root / name / 'f')!r}, 'rb').read()"
        assert (sharing.user.run("-c", program, groups=groups).returncode == 0) is granted, name
        before, asked = sharing.lent(), sharing.fetched(f"{quote(name)}/f")
        assert sharing.read(f"{name}/f", groups) == digest(data), name
        after = sharing.lent()
        assert (after["served"] > before["served"]) is granted, name
        assert (after["refused"] == before["refused"]) is granted, name
        assert (sharing.fetched(f"{quote(name)}/f") == asked) is granted, name


def test_who_may_not_come_to_the_mountpoint_is_refused(sharing):
    data = os.urandom(5_000)
    sharing.add("f", data)
    sharing.tree.root.parent.chmod(0o700)
    assert sharing.read("f") == digest(data)
    lent = sharing.lent()
    assert (lent["served"], lent["refused"] > 0) == (0, True)


def test_what_is_not_cached_is_not_fetched_for_others(sharing):
    data = os.urandom(LARGE)
    sharing.foreign.put("cold", data)
    assert sharing.read("cold") == digest(data)
    lent = sharing.lent()
    assert (lent["served"], lent["absent"] > 0) == (0, True)
    assert not sharing.sealed(LARGE)


def test_a_version_that_differs_is_not_served(sharing):
    sharing.add("f", bytes(5_000))
    (version,) = {sharing.foreign.client.head_object(Bucket=sharing.foreign._bucket, Key="p/f")["ETag"]}
    key = sharing.key("f", version.strip('"'), 5_000)
    with sharing.connected() as connection:
        connection.send(passing.question(key))
        assert passing.receive(connection, 5_000) is not None
    new = os.urandom(5_000)
    sharing.foreign.put("f", new)
    sharing.tree.command("refresh", str(sharing.tree.root))
    assert sharing.read("f") == digest(new)
    with sharing.connected() as connection:
        connection.send(passing.question(key))
        assert passing.receive(connection, 5_000) is None
    lent = sharing.lent()
    assert (lent["served"], lent["refused"] > 0, lent["absent"] > 0) == (1, True, True)


def test_rubbish_holds_nobody_up(sharing):
    data = os.urandom(5_000)
    sharing.add("f", data)
    good = passing.question(ObjectKey("s", "k", "v", 1))
    for rubbish in (b"", b"\0", b"[" * passing.LONGEST, good + b"\0", good[:-1], good + b"9" * 5_000, bytes(100_000)):
        with sharing.connected() as connection:
            connection.send(rubbish)
            assert connection.recv(100) == b""
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(sharing.connected()) for _ in range(5)]
        assert sharing.read("f") == digest(data)
        assert [connection.recv(1) for connection in silent] == [b""] * 5
    lent = sharing.lent()
    assert (lent["served"] > 0, lent["dropped"]) == (True, 12)


def test_eviction_leaves_what_a_user_holds(sharing):
    data = os.urandom(LARGE)
    sharing.add("f", data)
    with sharing.start("f") as reader:
        assert reader.stdout.readline() == "opened\n"
        assert sharing.tree.command("evict", str(sharing.tree.root / "f"), check=False).returncode == 1
        assert sharing.sealed(LARGE)
        out, err = reader.communicate("go on\n", timeout=60)
    assert out.split()[-1:] == [digest(data)], err
    sharing.tree.command("evict", str(sharing.tree.root / "f"))
    assert not sharing.sealed(LARGE)


def test_a_file_that_is_rewritten_stays_what_the_user_opened(sharing):
    data = os.urandom(LARGE)
    sharing.add("f", data)
    with sharing.start("f") as reader:
        assert reader.stdout.readline() == "opened\n"
        with open(sharing.tree.root / "f", "r+b") as file:
            file.write(b"changed")
        out, err = reader.communicate("go on\n", timeout=60)
    assert out.split()[-1:] == [digest(data)], err
    assert (sharing.tree.root / "f").read_bytes() == b"changed" + data[7:]


def test_the_end_of_the_daemon_does_not_disturb_the_reader(sharing):
    data = os.urandom(LARGE)
    sharing.add("f", data)
    with sharing.start("f") as reader:
        assert reader.stdout.readline() == "opened\n"
        kill_daemon(sharing.tree)
        out, err = reader.communicate("go on\n", timeout=60)
    assert out.split()[-1:] == [digest(data)], err


def test_a_mount_without_allow_other_offers_nothing(sharing):
    sharing.tree.umount()
    shared = sharing.directory / "run" / "shared"
    assert not list(shared.iterdir())
    sharing.tree.options = ()
    sharing.tree.mount()
    assert sharing.tree.status()["lent"] is None
    assert not list(shared.iterdir())


def test_the_control_socket_stays_private(sharing):
    done = sharing.user.run("-c", f"import os; os.listdir({str(sharing.directory / 'run')!r})")
    assert "Permission denied" in done.stderr
    control = Path(sharing.lent()["sockets"][0]).parent.parent
    assert [oct(path.stat().st_mode & 0o777) for path in control.glob("*.sock")] == ["0o600"]
    assert os.stat(sharing.user.home).st_uid == UID
