"""Helpers and units for mount(8) and systemd, installed below a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fsdriver.cli import main

ROOT = Path(__file__).parents[3]


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_install_and_uninstall(tmp_path, capsys):
    assert main(["install-system", "--root", str(tmp_path)]) == 0
    expected = {"sbin/mount.fuse.fsdriver", "sbin/mount.fsdriver", "etc/systemd/system/fsdriver@.service"}
    assert tree(tmp_path) == expected
    helper = tmp_path / "sbin/mount.fuse.fsdriver"
    assert os.access(helper, os.X_OK)
    (tmp_path / "etc/fsdriver/mine.toml").write_text("")
    assert main(["install-system", "--root", str(tmp_path)]) == 0
    assert main(["install-system", "--root", str(tmp_path), "--uninstall"]) == 0
    assert tree(tmp_path) == {"etc/fsdriver/mine.toml"}


def test_a_foreign_file_is_left_alone(tmp_path, capsys):
    foreign = tmp_path / "sbin/mount.fsdriver"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    assert main(["install-system", "--root", str(tmp_path)]) == 1
    assert main(["install-system", "--root", str(tmp_path), "--uninstall"]) == 1
    assert "left alone" in capsys.readouterr().err
    assert foreign.read_text() == "mine"


def test_the_helper_runs_the_command_from_an_empty_environment(tmp_path):
    main(["install-system", "--root", str(tmp_path)])
    done = subprocess.run(
        [tmp_path / "sbin/mount.fuse.fsdriver", "s3://b", "/nowhere", "-o", "rw,noauto,x-a,secret_access_key=hunter2"],
        env={},
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("fsdriver: secret_access_key: ")
    done = subprocess.run(
        [tmp_path / "sbin/mount.fuse.fsdriver", "s3://b", "/nowhere", "-f"], env={}, cwd="/", check=False
    )
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    main(["install-system", "--root", str(tmp_path)])
    units = tmp_path / "etc/systemd/system"
    # The template is checked as an instance, the example beside it.
    (units / "fsdriver@mnt-data.service").symlink_to("fsdriver@.service")
    shutil.copy(ROOT / "systemd/mnt-data.mount", units)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / "fsdriver@mnt-data.service", units / "mnt-data.mount"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
