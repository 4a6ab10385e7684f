"""universal_pathlib: paths of the tree behave as pathlib's."""

from __future__ import annotations

import pytest
from upath import UPath
from upath.registry import register_implementation

from fsdriver.fsspec_face.upath import TierPath
from tests.consumers.conftest import Place

# What the entry point of an installed package says; a checkout that was installed before it lacks it.
register_implementation("tier", TierPath, clobber=True)


@pytest.fixture
def path(place: Place) -> UPath:
    path = UPath(place.url, **place.options)
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_read_and_write(path: UPath) -> None:
    assert (path / "a.txt").write_text("text") == 4
    assert (path / "a.txt").read_text() == "text"
    (path / "b.bin").write_bytes(b"bytes")
    assert (path / "b.bin").stat().st_size == 5
    assert (path / "a.txt").exists()
    assert (path / "a.txt").is_file()
    assert not (path / "missing").exists()


def test_walk_the_tree(path: UPath) -> None:
    (path / "d" / "e").mkdir(parents=True)
    (path / "d" / "e" / "f.txt").write_text("1")
    (path / "d" / "g.txt").write_text("22")
    assert sorted(child.name for child in (path / "d").iterdir()) == ["e", "g.txt"]
    assert sorted(found.name for found in path.glob("**/*.txt")) == ["f.txt", "g.txt"]
    assert (path / "d").is_dir()
    assert (path / "d" / "g.txt").parent.name == "d"
    assert (path / "d" / "g.txt").suffix == ".txt"


def test_change(path: UPath) -> None:
    (path / "a").write_text("1")
    moved = (path / "a").rename(path / "b")
    assert moved.read_text() == "1"
    assert not (path / "a").exists()
    moved.unlink()
    assert not moved.exists()
    with pytest.raises(FileNotFoundError):
        (path / "b").read_text()
    (path / "d").mkdir()
    with pytest.raises(FileExistsError):
        (path / "d").mkdir()
    (path / "d").rmdir()
    assert not (path / "d").exists()
