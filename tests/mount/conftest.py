"""Real mounts: each is made by the command line, and always unmounted and its daemon ended, whatever a test does."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mount.foreign import Foreign
from tests.mount.users import REPOSITORY, User, runs_as_user
from tests.servers import FaultyProxy
from tests.waiting import wait_for

MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def fails_with(*codes: int) -> Iterator[None]:
    """The block raises an OSError with one of these errnos."""
    with pytest.raises(OSError, match=r"Errno") as raised:
        yield
    assert raised.value.errno in codes


@contextlib.contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """One test at a time, whichever worker runs it, for what belongs to the whole machine."""
    with open(Path(tempfile.gettempdir()) / f"fsdriver-tests-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/mount/" in str(item.path):
            item.add_marker(pytest.mark.mount)


@dataclass
class MountedTree:
    """One URL and its places on this host; mounted and unmounted at will."""

    url: str
    places: Path
    environment: dict[str, str]
    options: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    """A command that runs another one, which is given after it."""
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.places / "mnt"
        self.root.mkdir(parents=True)
        (self.places / "config.toml").touch()

    @property
    def env(self) -> dict[str, str]:
        folders = {
            "FSDRIVER_CACHE_DIR": str(self.places / "cache"),
            "FSDRIVER_STATE_DIR": str(self.places / "state"),
            "FSDRIVER_RUNTIME_DIR": str(self.places / "run"),
            "FSDRIVER_CONFIG": str(self.places / "config.toml"),
        }
        return {**os.environ, **folders, **self.environment}

    def command(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``fsdriver …`` with this tree's places."""
        done = subprocess.run(
            [*self.through, sys.executable, "-m", "fsdriver", *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"fsdriver {arguments}: {done.stdout}{done.stderr}\n{self.log()}"
        return done

    def mount(self, *options: str) -> MountedTree:
        given = [*self.options, *options]
        url = [self.url] if self.url else []  # without one, what is configured
        self.command("mount", *url, str(self.root), *(["-o", ",".join(given)] if given else []))
        return self

    def umount(self) -> None:
        self.command("umount", str(self.root))

    def status(self) -> dict:
        (answer,) = json.loads(self.command("status", str(self.root), "--json").stdout)
        return answer

    def forget_everything(self) -> None:
        """Another host: no cache, no state."""
        for name in ("cache", "state"):
            shutil.rmtree(self.places / name, ignore_errors=True)

    def remount_elsewhere(self) -> None:
        self.umount()
        self.forget_everything()
        self.mount()

    def log(self) -> str:
        return "".join(file.read_text() for file in (self.places / "state" / "log").glob("*.log"))

    def daemon_pids(self) -> list[int]:
        """Processes whose command line names this mountpoint."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                    if os.fsencode(self.root) in arguments and b"mount" in arguments:
                        found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Leave no mount and no process, however the test ended."""
        while _detach(self.root):
            continue
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.daemon_pids(), seconds=20)
        for pid in self.daemon_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _detach(root: Path) -> bool:
    if os.geteuid() == 0:
        return _libc.umount2(os.fsencode(root), MNT_DETACH) == 0
    return subprocess.run(["fusermount3", "-uz", root], capture_output=True, check=False).returncode == 0


class TreeMaker:
    """Makes trees and ends them all."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._made: list[MountedTree] = []

    def __call__(self, url: str | None = None, environment: dict[str, str] | None = None, *options: str) -> MountedTree:
        places = self._base / f"t{len(self._made)}"
        if url is None:
            (places / "bucket").mkdir(parents=True)
            url = f"file://{places}/bucket"
        tree = MountedTree(url, places, environment or {}, options)
        self._made.append(tree)
        return tree

    def end(self) -> None:
        for tree in self._made:
            tree.end()


@pytest.fixture(scope="session")
def fuse() -> None:
    """Skip where this machine cannot mount."""
    helped = shutil.which("fusermount3") is not None and os.access("/dev/fuse", os.R_OK | os.W_OK)
    if not os.path.exists("/dev/fuse") or (os.geteuid() != 0 and not helped):
        pytest.skip("needs /dev/fuse, and root or fusermount3")


@pytest.fixture(scope="module")
def module_trees(fuse, tmp_path_factory) -> Iterator[TreeMaker]:
    maker = TreeMaker(tmp_path_factory.mktemp("trees"))
    yield maker
    maker.end()


@pytest.fixture
def trees(fuse, tmp_path) -> Iterator[TreeMaker]:
    maker = TreeMaker(tmp_path)
    yield maker
    maker.end()


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> tuple[str, dict[str, str]]:
    """An interpreter with this package that the user may run: this one, the system's, or one of the user's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    paths = {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for candidate in (sys.executable, "/usr/bin/python3"):
        if runs_as_user(candidate, paths):
            return candidate, paths
    place = Path(tempfile.mkdtemp(prefix="fsdriver-user-venv-"))
    place.chmod(0o755)
    subprocess.run(["/usr/bin/python3", "-m", "venv", place], check=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", REPOSITORY], check=True)
    return str(place / "bin" / "python"), {}


@pytest.fixture
def user(fuse, python, request) -> Iterator[User]:
    if shutil.which("fusermount3") is None:
        pytest.skip("needs fusermount3")
    home = Path(tempfile.mkdtemp(prefix="fsdriver-user-"))
    made = User(home, [python[0]], python[1])
    yield made
    if (
        f" {made.root} " in Path("/proc/mounts").read_text()
    ):  # the user's mount is closed to root: ismount tells nothing
        subprocess.run(["umount", "--lazy", made.root], check=True)
    shutil.rmtree(home, ignore_errors=True)


OPTIONS = {"daemon": ("passthrough=off",), "libfuse": ("transport=libfuse",)}
"""Of the kinds of trees that need any."""


def make_tree(kind: str, maker: TreeMaker, request: pytest.FixtureRequest) -> MountedTree:
    if "libfuse" in kind:
        request.getfixturevalue("libfuse")
    options = OPTIONS.get(kind.removeprefix("s3_"), ())
    if kind.startswith("s3"):
        server = request.getfixturevalue("s3_server")
        return maker(f"s3://{server.create_bucket()}/p", server.environment(), *options)
    return maker(None, None, *options)


@pytest.fixture(scope="session")
def libfuse() -> None:
    """Skip where the libfuse transport is not installed."""
    from fsdriver.errors import Unsupported
    from fsdriver.fuse_mount.libfuse.binding import load

    try:
        load()
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["local", "daemon", "libfuse", "s3"])
def tree(request, module_trees) -> MountedTree:
    """A mounted tree for the whole module: local with passthrough, without it, through libfuse, and S3."""
    return make_tree(request.param, module_trees, request).mount()


@pytest.fixture
def kernel_transport(tree) -> None:
    """For what libfuse has no call for, or loses by itself (docs/operating.md)."""
    if "transport=libfuse" in tree.options:
        pytest.skip("not possible through libfuse")


@pytest.fixture
def root() -> None:
    """For what a file system lets root do only."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def here(tree, request) -> Path:
    """An empty directory of the test's own in the mount."""
    path = tree.root / request.node.name.translate(str.maketrans("[]/", "___"))
    path.mkdir()
    return path


@pytest.fixture(params=["local", "libfuse"])
def local_tree(request, trees) -> MountedTree:
    """A local tree of the test's own, not yet mounted, for each transport."""
    return make_tree(request.param, trees, request)


@pytest.fixture(params=["local", "libfuse", "s3"])
def own_tree(request, trees) -> MountedTree:
    """A tree of the test's own, not yet mounted."""
    return make_tree(request.param, trees, request)


def another_writer(tree: MountedTree, request: pytest.FixtureRequest) -> Foreign:
    """What another program does to the bucket of a tree of `make_tree`."""
    s3 = tree.url.startswith("s3:")
    return Foreign(tree, request.getfixturevalue("s3_server").client() if s3 else None)


@pytest.fixture
def foreign(tree: MountedTree, request: pytest.FixtureRequest) -> Foreign:
    """Another writer of the bucket of ``tree``."""
    return another_writer(tree, request)


@pytest.fixture
def proxied(trees: TreeMaker, s3_server) -> Iterator[tuple[MountedTree, FaultyProxy, Foreign]]:
    """An S3 tree behind a proxy, not yet mounted."""
    with FaultyProxy(s3_server.endpoint) as proxy:
        environment = {**s3_server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}
        tree = trees(f"s3://{s3_server.create_bucket()}/p", environment)
        yield tree, proxy, Foreign(tree, s3_server.client())
        proxy.release()
        tree.end()


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor; closing it may fail, as the mount has ended by then."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def kill_daemon(tree: MountedTree) -> None:
    """What a crash of the daemon leaves: the mount answers ENOTCONN until it is mounted again."""
    (pid,) = tree.daemon_pids()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not tree.daemon_pids())


@contextlib.contextmanager
def small_disk(place: Path, *options: str) -> Iterator[Path]:
    """A file system of its own at ``place``."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(("mode=0700", *options)), "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
