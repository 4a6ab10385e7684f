"""What is particular to the libfuse transport; that it serves the same tree, the tests prove that it shares with the other."""

from __future__ import annotations

import os
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree
from tests.mount.test_lifecycle import wait_for

HIDE = 'raise ModuleNotFoundError("hidden by a test", name=__name__)\n'


@pytest.fixture
def tree(libfuse, trees) -> MountedTree:
    return trees().mount("transport=libfuse")


def hiding(tmp_path: Path, *modules: str) -> dict[str, str]:
    """An environment in which modules are not installed."""
    place = tmp_path / "hiding"
    place.mkdir()
    for module in modules:
        (place / f"{module}.py").write_text(HIDE)
    return {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_status_names_the_transport_and_the_library(tree):
    status = tree.status()
    assert status["transport"] == "libfuse"
    assert status["transport_reason"] == "asked for"
    assert "libfuse" in status["library"]
    assert "fusepy" in status["library"]
    assert "libfuse" in tree.command("status", str(tree.root)).stdout


def test_the_kernel_transport_is_the_default_on_linux(trees):
    status = trees().mount().status()
    assert (status["transport"], status["transport_reason"]) == ("kernel", "the default on Linux")


def test_the_option_of_the_command_line(libfuse, trees):
    tree = trees()
    tree.command("mount", tree.url, str(tree.root), "--transport", "libfuse")
    assert tree.status()["transport"] == "libfuse"


def test_an_unknown_transport_is_explained(trees):
    tree = trees()
    done = tree.command("mount", tree.url, str(tree.root), "-o", "transport=fuse", check=False)
    assert done.returncode != 0
    assert "auto, kernel, libfuse" in done.stderr


def test_a_missing_package_is_explained(trees, tmp_path):
    tree = trees(None, hiding(tmp_path, "mfusepy", "fuse"), "transport=libfuse")
    done = tree.command("mount", tree.url, str(tree.root), "-o", "transport=libfuse", check=False)
    assert done.returncode != 0
    assert "pip install 'fsdriver[libfuse]'" in done.stderr
    assert not os.path.ismount(tree.root)


VARIANTS = {
    "mfusepy with libfuse 2": ("libfuse 2", "mfusepy", ()),
    "fusepy with libfuse 2": ("libfuse 2", "fusepy", ("mfusepy",)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_older_libraries_and_packages(trees, tmp_path, variant):
    library, package, hidden = VARIANTS[variant]
    if (path := os.environ.get("FSDRIVER_TEST_LIBFUSE2") or find_library("fuse")) is None:
        pytest.skip("libfuse 2 is not installed")
    if find_spec("fuse" if package == "fusepy" else package) is None:
        pytest.skip(f"{package} is not installed")
    environment = {**hiding(tmp_path, *hidden), "FUSE_LIBRARY_PATH": path}
    tree = trees(None, environment, "transport=libfuse").mount()
    assert library in tree.status()["library"]
    assert f"through {package}" in tree.status()["library"]
    raw = os.fsencode(tree.root) + b"/not-utf8-\xff"
    with open(raw, "wb") as file:
        file.write(b"content")
        os.fsync(file.fileno())
    os.utime(raw, ns=(1, 2_000_000_003))
    os.mkdir(tree.root / "ä")
    os.rename(raw, os.fsencode(tree.root / "ä" / "f"))
    with open(tree.root / "ä" / "f", "r+b", buffering=0) as file:
        os.unlink(tree.root / "ä" / "f")
        assert os.listdir(tree.root / "ä") == []
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.fstat(file.fileno()).st_mtime_ns == 2_000_000_003
        assert file.read() == b"content"
    tree.umount()
    assert tree.daemon_pids() == []


def test_a_removed_file_that_is_open_shows_nowhere(tree):
    directory = tree.root / "d"
    directory.mkdir()
    with open(directory / "f", "w+b", buffering=0) as file:
        file.write(b"before")
        os.unlink(directory / "f")
        assert os.listdir(directory) == []
        os.rename(directory, tree.root / "e")
        os.fchmod(file.fileno(), 0o600)
        status = os.fstat(file.fileno())
        assert (status.st_nlink, status.st_size, status.st_mode & 0o777) == (0, 6, 0o600)
        os.rmdir(tree.root / "e")
        file.truncate(3)
        assert os.pread(file.fileno(), 10, 0) == b"bef"
    assert os.listdir(tree.root) == []
    wait_for(lambda: tree.status()["open_files"] == 0)
    tree.umount()
    assert sorted(os.listdir(tree.url.removeprefix("file://"))) in ([], [".fsdriver"])


def test_a_name_like_those_of_libfuse_is_kept_for_a_closed_file(tree):
    (tree.root / "f").write_text("content")
    wait_for(lambda: tree.status()["open_files"] == 0)
    os.rename(tree.root / "f", tree.root / ".fuse_hidden0000000200000001")
    assert (tree.root / ".fuse_hidden0000000200000001").read_text() == "content"


def test_a_new_version_beside_an_open_reader_of_the_old(libfuse, trees):
    tree = trees()
    bucket = Path(tree.url.removeprefix("file://"))
    (bucket / "f").write_bytes(b"a" * 300_000)
    tree.mount("transport=libfuse,ttl=0s")
    with open(tree.root / "f", "rb", buffering=0) as old:
        assert old.read(10) == b"a" * 10
        (bucket / "new").write_bytes(b"b" * 300_000)
        os.replace(bucket / "new", bucket / "f")
        for _ in range(3):
            assert (tree.root / "f").read_bytes() == b"b" * 300_000
            old.seek(0)
            assert set(old.read(300_000)) == {ord("a")}
    assert (tree.root / "f").read_bytes() == b"b" * 300_000
