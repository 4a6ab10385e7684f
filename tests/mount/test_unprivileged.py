"""A user without privileges mounts through fusermount3."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import machine_lock
from tests.mount.users import REPOSITORY, UID


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


def test_nobody_else_of_the_user_looks_into_the_daemon(user, device):
    done = user.fsdriver("mount", f"file://{user.bucket}", str(user.root), AWS_SECRET_ACCESS_KEY="secret")
    assert done.returncode == 0, done.stderr
    (status,) = json.loads(user.fsdriver("status", "--json").stdout)
    for name in ("environ", "mem"):
        done = user.run("-c", f"open('/proc/{status['pid']}/{name}', 'rb').read(1)")
        assert "PermissionError" in done.stderr
    assert user.fsdriver("umount", str(user.root)).returncode == 0


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
