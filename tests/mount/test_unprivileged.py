"""A user without privileges mounts through fusermount3."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import machine_lock

REPOSITORY = Path(__file__).parents[2]
UID = 65534


class User:
    """Runs commands as a user without privileges, with places of its own."""

    def __init__(self, home: Path, python: list[str], environment: dict[str, str]) -> None:
        self.home = home
        self.root = home / "mnt"
        self.bucket = home / "bucket"
        self._python = python
        self._environment = environment
        for place in (self.root, self.bucket):
            place.mkdir()
        for place in (home, self.root, self.bucket):
            os.chown(place, UID, UID)

    def run(self, *arguments: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        folders = {f"FSDRIVER_{name}_DIR": str(self.home / name.lower()) for name in ("CACHE", "STATE", "RUNTIME")}
        return subprocess.run(
            [*self._python, *arguments],
            user=UID,
            group=UID,
            extra_groups=[],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **folders, **self._environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run tests of this folder."""
        places = ["-p", "no:cacheprovider", f"--basetemp={self.home / 'tests'}", f"--rootdir={REPOSITORY}"]
        return self.run("-m", "pytest", "-q", "-rfEs", *places, *arguments, timeout=900)

    def fsdriver(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "fsdriver", *arguments, **more)


def _runs_as_user(python: str, environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", "import fsdriver.config, sys; sys.exit(sys.version_info < (3, 11))"],
            user=UID,
            group=UID,
            extra_groups=[],
            cwd="/",
            env=environment,
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


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
        if _runs_as_user(candidate, paths):
            return candidate, paths
    place = Path(tempfile.mkdtemp(prefix="fsdriver-user-venv-"))
    place.chmod(0o755)
    subprocess.run(["/usr/bin/python3", "-m", "venv", place], check=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", REPOSITORY], check=True)
    return str(place / "bin" / "python"), {}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One at a time, whichever worker runs it: these tests open and close /dev/fuse for everybody."""
    with machine_lock("device"):
        yield


@pytest.fixture
def device(alone) -> Iterator[None]:
    """/dev/fuse as distributions ship it: open to everyone."""
    before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", before)


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


def test_mounts_writes_and_unmounts(user, device):
    done = user.fsdriver("mount", f"file://{user.bucket}", str(user.root))
    assert done.returncode == 0, done.stderr
    done = user.run("-c", f"open({str(user.root / 'f')!r}, 'w').write('mine')")
    assert done.returncode == 0, done.stderr
    done = user.run("-c", f"import os; s = os.stat({str(user.root / 'f')!r}); print(s.st_uid, s.st_size)")
    assert done.stdout.split() == [str(UID), "4"]
    status = user.fsdriver("status", "--json").stdout
    assert "CAP_SYS_ADMIN" in status
    done = user.fsdriver("umount", str(user.root))
    assert done.returncode == 0, done.stderr
    assert not os.path.ismount(user.root)
    assert (user.bucket / "f").read_text() == "mine"


def test_a_closed_device_is_explained(user):
    before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o600)
    try:
        done = user.fsdriver("mount", f"file://{user.bucket}", str(user.root))
    finally:
        os.chmod("/dev/fuse", before)
    assert done.returncode != 0
    assert "chmod 0666 /dev/fuse" in done.stderr


def test_a_missing_helper_is_explained(user, device):
    done = user.fsdriver("mount", f"file://{user.bucket}", str(user.root), PATH=str(user.home))
    assert done.returncode != 0
    assert "apt-get install fuse3" in done.stderr


def test_allow_other_is_explained(user, device):
    conf = Path("/etc/fuse.conf")
    if conf.exists() and any(line.strip() == "user_allow_other" for line in conf.read_text().splitlines()):
        pytest.skip("this machine allows it")
    done = user.fsdriver("mount", f"file://{user.bucket}", str(user.root), "-o", "allow_other")
    assert done.returncode != 0
    assert "user_allow_other" in done.stderr


def test_a_user_may_not_command_the_daemon_of_another(trees, user):
    tree = trees().mount()
    done = user.run(
        "-c",
        "from fsdriver.fuse_mount.control import ask, socket_path\n"
        "from pathlib import Path\n"
        f"ask(Path({str(tree.places / 'run')!r}) / 'mount-x.sock', '/', 'status', 5, {{}})",
    )
    assert done.returncode != 0


def test_status_shows_mounts_of_this_user_only(trees, user):
    tree = trees().mount()
    done = user.fsdriver("status")
    assert done.returncode == 0, done.stderr
    assert str(tree.root) not in done.stdout


@pytest.mark.timeout(900)
def test_the_core_of_the_mount_tests_passes_without_privileges(user, device):
    if user.run("-c", "import pytest, pytest_timeout").returncode:
        pytest.skip("the user has no pytest")
    files = [str(REPOSITORY / "tests" / "mount" / name) for name in ("test_files.py", "test_names.py")]
    done = user.pytest("-k", "local or libfuse", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
