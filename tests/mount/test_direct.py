"""``direct://`` through the mount: a plain tree, no copies in the cache, and what status says where there is no direct I/O."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fsdriver.backends.direct import refusal

SIZE = (5 << 20) + 77


@pytest.fixture
def folder(tmp_path):
    if refusal(str(tmp_path)):
        pytest.skip("the file system of temporary files has no direct I/O")
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_files_are_written_read_and_changed_in_place(trees, folder):
    tree = trees(f"direct://{folder}")
    tree.mount()
    data = os.urandom(SIZE)
    (tree.root / "d").mkdir()
    (tree.root / "d" / "f").write_bytes(data)
    tree.command("sync", str(tree.root))
    assert (folder / "d" / "f").read_bytes() == data
    assert (tree.root / "d" / "f").read_bytes() == data
    (folder / "foreign").write_bytes(data)
    tree.command("refresh", str(tree.root))
    assert (tree.root / "foreign").read_bytes() == data
    assert json.loads(tree.command("status", str(tree.root), "--json").stdout)[0]["cache"]["bytes"] == 0
    with open(tree.root / "foreign", "r+b", buffering=0) as file, open(tree.root / "foreign", "rb") as before:
        assert before.read(10) == data[:10]
        file.seek(SIZE // 2)
        file.write(b"changed")
    os.rename(tree.root / "d" / "f", tree.root / "g")
    tree.command("sync", str(tree.root))
    assert (folder / "foreign").read_bytes() == data[: SIZE // 2] + b"changed" + data[SIZE // 2 + 7 :]
    assert (folder / "g").read_bytes() == data


def test_status_tells_where_there_is_no_direct_io(trees, tmp_path):
    shm = Path("/dev/shm")
    if not refusal(str(shm)) or not os.access(shm, os.W_OK):
        pytest.skip("needs a file system in memory")
    folder = shm / f"fsdriver-{os.getpid()}"
    folder.mkdir()
    try:
        tree = trees(f"direct://{folder}")
        tree.mount()
        (tree.root / "f").write_bytes(b"content")
        tree.command("sync", str(tree.root))
        shown = tree.command("status", str(tree.root)).stdout
        assert "tmpfs" in shown
        assert "file://" in shown
        assert "a file of direct:// was read or written" in shown
    finally:
        tree.end()
        shutil.rmtree(folder)
