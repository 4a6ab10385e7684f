"""What a daemon leaves behind, shows and hands on: no core file, no key, and nothing of directories closed to others."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker


@pytest.fixture
def secretive(trees: TreeMaker, s3_server) -> MountedTree:
    """An S3 tree whose keys are in its configuration alone, mounted with all logging on."""
    bucket = s3_server.create_bucket()
    tree = trees(f"s3://{bucket}/p", {"FSDRIVER_LOG": "DEBUG"})
    config = tree.places / "config.toml"
    config.touch(mode=0o600)
    config.write_text(
        f'[backend.b]\nurl = "s3://{bucket}/p"\nendpoint = "{s3_server.endpoint}"\n'
        f'access_key_id = "{s3_server.access_key}"\nsecret_access_key = "{s3_server.secret_key}"\n'
        '[[route]]\npath = "/"\ntiers = ["b"]\n'
    )
    tree.command("mount", str(tree.root))
    return tree


def test_no_secret_is_in_logs_status_files_or_the_command_line(secretive: MountedTree, s3_server) -> None:
    root = secretive.root
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"x" * 100_000)
    os.chmod(root / "d" / "f", 0o4755)
    secretive.command("sync", str(root))
    os.rename(root / "d" / "f", root / "d" / "g")
    assert (root / "d" / "g").read_bytes() == b"x" * 100_000
    with contextlib.suppress(OSError):
        os.listdir(root / "none")
    shown = (
        json.dumps(secretive.status())
        + secretive.command("status", str(root)).stdout
        + secretive.command("doctor", check=False).stdout
    )
    shown += secretive.command("config", "check").stdout
    shown += "".join((root / ".fsdriver" / name).read_text() for name in ("stats.json", "pending.json", "health.json"))
    shown += Path("/proc/self/mountinfo").read_text()
    (pid,) = secretive.daemon_pids()
    shown += Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_bytes().decode(
        errors="replace"
    )
    assert s3_server.secret_key not in shown
    assert "plain HTTP" in shown
    secretive.umount()
    log = secretive.log()
    assert "DEBUG" in log
    for places in ("log", "run", "state"):
        for file in (secretive.places / places).rglob("*"):
            if file.is_file():
                assert s3_server.secret_key.encode() not in file.read_bytes(), file


def test_what_is_made_without_any_umask_is_closed(trees: TreeMaker) -> None:
    tree = trees()
    before = os.umask(0)
    try:
        tree.mount(*(["allow_other"] if os.geteuid() == 0 else []))
    finally:
        os.umask(before)
    (tree.root / "f").write_bytes(b"x")
    made = [one for name in ("cache", "state", "run") for one in (tree.places / name, *(tree.places / name).rglob("*"))]
    offered = [one for one in made if "shared" in one.parts or one.name == "run"]
    wide = [str(one) for one in made if one not in offered and stat.S_IMODE(one.lstat().st_mode) & 0o077]
    assert not wide
    assert {
        stat.S_IMODE((tree.root / ".fsdriver" / name).stat().st_mode) for name in ("stats.json", "pending.json")
    } == {0o400}
    assert stat.S_IMODE((tree.root / ".fsdriver").stat().st_mode) == 0o500


def test_nothing_of_a_bucket_gains_rights(trees: TreeMaker) -> None:
    tree = trees().mount()
    (line,) = (line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {tree.root} " in line)
    options = set(f"{line.split()[5]},{line.split()[-1]}".split(","))
    assert {"nosuid", "nodev", "default_permissions"} <= options
    assert "allow_other" not in options
    done = tree.command("mount", tree.url, str(tree.root), "-o", "default_permissions=off", check=False)
    assert done.returncode != 0
