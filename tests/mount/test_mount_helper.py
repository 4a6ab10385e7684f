"""``mount -t fuse.fsdriver`` and a line of fstab, through what ``fsdriver install-system`` installs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.cli import main
from fsdriver.cli.install import HELPERS
from tests.mount.conftest import machine_lock

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="writes to /sbin"),
]


@pytest.fixture
def installed() -> Iterator[None]:
    """The helpers in /sbin, as they were before when the test is over."""
    with machine_lock("system"):
        before = {Path("/") / name: (Path("/") / name).is_file() for name in HELPERS}
        assert main(["install-system"]) == 0
        yield
        if not any(before.values()):
            assert main(["install-system", "--uninstall"]) == 0


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for place in ("CACHE", "STATE", "RUNTIME"):
        monkeypatch.setenv(f"FSDRIVER_{place}_DIR", str(tmp_path / place.lower()))
    monkeypatch.setenv("FSDRIVER_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a.txt").write_text("bytes")
    (tmp_path / "mnt").mkdir()
    yield tmp_path
    if os.path.ismount(tmp_path / "mnt"):
        subprocess.run(["umount", tmp_path / "mnt"], check=True)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", ["fuse.fsdriver", "fsdriver"])
def test_mount_by_type(places, kind):
    source, point = f"file://{places}/bucket", places / "mnt"
    subprocess.run(["mount", "-t", kind, "-o", "ttl=1s,noauto,_netdev,x-test=1", source, point], check=True, timeout=60)
    assert (point / "a.txt").read_text() == "bytes"
    (point / "b.txt").write_text("more")
    assert main(["umount", str(point)]) == 0
    assert (places / "bucket" / "b.txt").read_text() == "more"


@pytest.mark.usefixtures("installed")
def test_a_mount_that_fails_says_why(places):
    done = subprocess.run(
        ["mount", "-t", "fuse.fsdriver", f"file://{places}/none", places / "mnt"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "does not exist" in done.stderr


@pytest.mark.usefixtures("installed")
def test_a_line_of_fstab(places):
    fstab = places / "fstab"
    fstab.write_text(f"file://{places}/bucket {places}/mnt fuse.fsdriver noauto,nofail,ro,ttl=1s 0 0\n")
    subprocess.run(["mount", "-T", fstab, places / "mnt"], check=True, timeout=60)
    assert (places / "mnt" / "a.txt").read_text() == "bytes"
    with pytest.raises(OSError, match="Read-only file system"):
        (places / "mnt" / "b.txt").write_text("x")
