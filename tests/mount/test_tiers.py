"""Files of a mount over two tiers: they move, by command, attribute and rule, and programs notice nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker
from tests.waiting import wait_for

BODY = os.urandom(700_000)


@pytest.fixture
def tiers(trees: TreeMaker, s3_server, tmp_path: Path) -> MountedTree:
    """A directory over a bucket; idle files go down after an hour, those used four times come up."""
    return _mounted(trees, s3_server, tmp_path, 'idle_threshold = "1h"\npromotion_accesses = 4\nsweep = "100ms"\n')


def _mounted(trees: TreeMaker, s3_server, tmp_path: Path, policy: str, route: str = "") -> MountedTree:
    bucket, disk = s3_server.create_bucket(), tmp_path / "disk"
    disk.mkdir()
    tree = trees(f"file://{disk}", {})
    config = tree.places / "config.toml"
    config.touch(mode=0o600)
    config.write_text(
        f'[backend.disk]\nurl = "file://{disk}"\n[backend.cold]\nurl = "s3://{bucket}/p"\nendpoint = "{s3_server.endpoint}"\n'
        f'access_key_id = "{s3_server.access_key}"\nsecret_access_key = "{s3_server.secret_key}"\n'
        f'[[route]]\npath = "/"\ntiers = ["disk", "cold"]\n{route}[policy.default]\n{policy}'
    )
    tree.command("mount", str(tree.root))
    return tree


def tier_of(path: Path) -> str:
    return os.getxattr(path, "user.fsdriver.tier").decode()


def explained(tree: MountedTree, path: Path) -> dict:
    return json.loads(tree.command("explain", str(path), "--json").stdout)


def test_a_file_moves_and_nobody_notices(tiers: MountedTree, tmp_path: Path) -> None:
    file = tiers.root / "d" / "file"
    file.parent.mkdir()
    file.write_bytes(BODY)
    os.chmod(file, 0o640)
    os.utime(file, ns=(10**18, 10**18 + 7))
    tiers.command("sync", str(tiers.root))
    before = file.stat()
    with file.open("rb") as reader:
        assert reader.read(1000) == BODY[:1000]
        os.setxattr(file, "user.fsdriver.tier", b"cold")
        assert tier_of(file) == "cold"
        assert not (tmp_path / "disk" / "d" / "file").exists()
        assert reader.read() == BODY[1000:]
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns, after.st_mode) == (
        before.st_ino, before.st_size, before.st_mtime_ns, before.st_mode,
    )  # fmt: skip
    told = tiers.command("move", str(tiers.root / "d"), "-r", "--tier", "disk", "--keep").stdout
    assert "1 file in disk" in told
    assert tier_of(file) == "disk,cold"
    assert os.getxattr(file, "user.fsdriver.sha256").decode() == hashlib.sha256(BODY).hexdigest()
    assert float(os.getxattr(file, "user.fsdriver.heat")) > 0
    done = tiers.command("move", str(file), "--tier", "warm", check=False)
    assert done.returncode == 1
    assert "disk, cold" in done.stderr
    with file.open("r+b") as writer:
        writer.write(b"changed")
    tiers.command("sync", str(tiers.root))
    assert tier_of(file) == "disk"
    assert file.read_bytes() == b"changed" + BODY[7:]


def test_the_rules_move_files_and_explain_themselves(trees: TreeMaker, s3_server, tmp_path: Path) -> None:
    tree = _mounted(trees, s3_server, tmp_path, 'idle_threshold = "0.5s"\npromotion_accesses = 1000\nsweep = "100ms"\n')
    file = tree.root / "file"
    file.write_bytes(BODY)
    tree.command("sync", str(tree.root))
    wait_for(lambda: tier_of(file) == "cold")
    told = tree.command("explain", str(file)).stdout
    assert "heat" in told
    assert "1000 uses or more" in told.replace(",", "")
    assert json.loads(tree.command("sweep", str(tree.root), "--dry-run", "--json").stdout)["moves"] == []
    (stack,) = tree.status()["stacks"].values()
    assert [one["name"] for one in stack["tiers"]] == ["disk", "cold"]
    assert stack["moves"]["done"] >= 1
    assert file.read_bytes() == BODY


def test_what_was_moved_is_there_after_everything_local_is_lost(tiers: MountedTree) -> None:
    for name in ("up", "down"):
        (tiers.root / name).write_bytes(name.encode() * 1000)
        os.chmod(tiers.root / name, 0o600)
    tiers.command("move", str(tiers.root / "down"), "--tier", "cold")
    inodes = {name: (tiers.root / name).stat().st_ino for name in ("up", "down")}
    tiers.umount()
    tiers.forget_everything()
    tiers.command("mount", str(tiers.root))
    assert sorted(os.listdir(tiers.root)) == ["down", "up"]
    for name in ("up", "down"):
        found = (tiers.root / name).stat()
        assert (found.st_ino, found.st_mode & 0o777) == (inodes[name], 0o600)
        assert (tiers.root / name).read_bytes() == name.encode() * 1000
    assert tier_of(tiers.root / "down") == "cold"


def test_the_disk_of_the_hot_tier_goes_and_its_replica_serves(trees: TreeMaker, s3_server, tmp_path: Path) -> None:
    tree = _mounted(trees, s3_server, tmp_path, "", 'replicate = ["cold"]\n')
    (tree.root / "d").mkdir()
    (tree.root / "d" / "file").write_bytes(BODY)
    os.chmod(tree.root / "d" / "file", 0o600)
    tree.command("sync", str(tree.root))
    wait_for(lambda: tier_of(tree.root / "d" / "file") == "disk,cold")
    wait_for(lambda: not tree.status()["stacks"].popitem()[1]["owes"])
    tree.umount()
    tree.forget_everything()
    shutil.rmtree(tmp_path / "disk")
    (tmp_path / "disk").mkdir()  # a new one
    tree.command("mount", str(tree.root))
    assert (tree.root / "d" / "file").read_bytes() == BODY
    assert (tree.root / "d" / "file").stat().st_mode & 0o777 == 0o600


def test_programs_work_while_files_move(tiers: MountedTree) -> None:
    """git on files that go down and come up all the time."""
    repository = tiers.root / "repository"
    subprocess.run(["git", "init", "-q", str(repository)], check=True, timeout=120)
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@y", "-c", "gc.auto=0"]
    for number in range(3):
        (repository / f"file{number}").write_bytes(BODY[: 1000 * (number + 1)])
        subprocess.run([*git, "add", "-A"], check=True, timeout=120)
        subprocess.run([*git, "commit", "-qm", str(number)], check=True, timeout=120)
        target = ["cold", "disk"][number % 2]
        tiers.command("move", "-r", str(repository), "--tier", target, timeout=300)
        assert (
            subprocess.run([*git, "status", "--porcelain"], check=True, timeout=120, stdout=subprocess.PIPE).stdout
            == b""
        )
    subprocess.run([*git, "fsck", "--strict"], check=True, timeout=120, capture_output=True)
