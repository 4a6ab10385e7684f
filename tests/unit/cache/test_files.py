"""Files below ``objects/``, while others change that directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from fsdriver.cache.files import sealed_files


def test_directories_that_go_meanwhile_are_passed_over(tmp_path: Path) -> None:
    for store in "ab":
        for key in "cd":
            (tmp_path / store / key).mkdir(parents=True)
            (tmp_path / store / key / "version").write_bytes(b"x")
    (tmp_path / ".fills").mkdir()
    (tmp_path / ".fills" / "file").touch()
    (tmp_path / "a" / "stray").touch()
    found = sealed_files(tmp_path)
    first, status = next(found)
    assert status.st_size == 1
    for directory in [first.parent.parent, *tmp_path.glob("[ab]/d")]:
        if directory.exists():
            shutil.rmtree(directory)
    assert [path.relative_to(tmp_path).parts[1:] for path, _ in found] == [("c", "version")]


def test_all_are_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "c").mkdir(parents=True)
    for version in ("1", "2"):
        (tmp_path / "a" / "c" / version).touch()
    assert sorted(path.name for path, _ in sealed_files(tmp_path)) == ["1", "2"]
