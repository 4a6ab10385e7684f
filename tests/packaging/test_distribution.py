"""The wheel and the sdist: what is in them, and that the wheel works where a user has modules of the same names."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"fsdriver.cache": "cache", "fsdriver.fuse_mount": "fuse_mount", "fsdriver.systemd": "systemd"}
PRESENT = {"__pycache__", ".venv", ".git", ".demo", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """Wheel and sdist, the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=lambda _, names: PRESENT & set(names))
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder / "dist", source], check=True, capture_output=True
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory) -> Path:
    """Python of a clean environment with the wheel; dependencies come from this one by a path file."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", distributions[0]], check=True, capture_output=True)
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(purelib, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def packages() -> set[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return set(tomllib.load(file)["tool"]["setuptools"]["packages"])


def test_every_package_is_listed():
    tracked = subprocess.run(["git", "ls-files", "*__init__.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = set()
    for line in tracked.stdout.split():
        parts = Path(line).parent.parts
        if parts[0] in {"fsdriver", "cache", "fuse_mount"}:
            found.add(".".join(parts if parts[0] == "fsdriver" else ("fsdriver", *parts)))
    assert packages() - {"fsdriver.systemd"} == found


def test_the_wheel_has_one_import_root(distributions):
    names = zipfile.ZipFile(distributions[0]).namelist()
    roots = {name.split("/")[0] for name in names}
    assert roots == {"fsdriver", next(root for root in roots if root.endswith(".dist-info"))}
    for name in (
        "py.typed",
        "cache/__init__.py",
        "fuse_mount/__init__.py",
        "config/models.py",
        "systemd/fsdriver@.service",
    ):
        assert f"fsdriver/{name}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_has_every_module(distributions):
    names = set(zipfile.ZipFile(distributions[0]).namelist())
    for package in packages():
        folder = ROOMS.get(package) or package.replace(".", "/")
        if package.startswith("fsdriver.fuse_mount."):
            folder = package.removeprefix("fsdriver.").replace(".", "/")
        for module in (ROOT / folder).glob("*.py"):
            assert f"{package.replace('.', '/')}/{module.name}" in names


def test_the_sdist_has_all_that_is_worked_with(distributions):
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "Makefile",
        "cache/__init__.py",
        "fuse_mount/__init__.py",
        "systemd/fsdriver@.service",
        "docs/configuration.md",
        "tests/packaging/test_distribution.py",
        "scripts/setup.sh",
        "fsdriver/py.typed",
    ):
        assert name in names
    assert not any("__pycache__" in name for name in names)


def test_a_users_own_modules_stay_their_own(installed, tmp_path):
    for name in ("cache", "fuse_mount", "config", "errors"):
        (tmp_path / f"{name}.py").write_text("OWNER = 'user'\n")
    program = (
        "import cache, fuse_mount, config, errors\n"
        "import fsdriver.cache, fsdriver.fuse_mount, fsdriver.config, fsdriver.errors\n"
        "assert {cache.OWNER, fuse_mount.OWNER, config.OWNER, errors.OWNER} == {'user'}\n"
        "print(fsdriver.cache.__file__)\n"
    )
    done = subprocess.run([installed, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed.parents[1]))


def test_the_command_and_the_entry_point_exist(installed, tmp_path):
    done = subprocess.run(
        [installed.with_name("fsdriver"), "--version"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("fsdriver, version ")
    program = "import fsspec; print(fsspec.get_filesystem_class('tier').__module__)"
    done = subprocess.run([installed, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "fsdriver.filesystem", done.stderr
