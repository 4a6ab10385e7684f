"""Changing the namespace: rm, mkdir, cp, mv, put, get, touch and what they leave behind."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback

from fsdriver.testing.base import Abilities, noise

CLOCK_SLACK = dt.timedelta(seconds=3)
"""Stores round their timestamps, and their clock is not ours."""


class ChangingTests(Abilities):
    """Part of `fsdriver.testing.filesystem.FilesystemSuite`."""

    def test_rm_file(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/a": b"1", f"{root}/ab": b"2"})
        fs.rm(f"{root}/a")
        assert not fs.exists(f"{root}/a")
        assert fs.cat_file(f"{root}/ab") == b"2"
        fs.rm_file(f"{root}/ab")
        assert not fs.exists(f"{root}/ab")

    def test_rm_of_what_is_missing(self, fs: Any, root: str) -> None:
        self.needs("missing_is_error")
        with pytest.raises(FileNotFoundError):
            fs.rm(f"{root}/missing")

    def test_rm_list_and_glob(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/{name}": b"x" for name in ("a.tmp", "b.tmp", "c.txt", "d.txt")})
        fs.rm(f"{root}/*.tmp")
        assert len(fs.ls(root)) == 2
        fs.rm([f"{root}/c.txt", f"{root}/d.txt"])
        assert fs.find(root) == []

    def test_rm_tree(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/t/{name}": b"x" for name in ("a", "d/b", "d/e/c")} | {f"{root}/tx": b"stays"})
        fs.rm(f"{root}/t", recursive=True)
        assert not fs.exists(f"{root}/t") and not fs.exists(f"{root}/t/d/e/c")
        assert fs.cat_file(f"{root}/tx") == b"stays"

    def test_rm_directory_needs_recursive(self, fs: Any, root: str) -> None:
        self.needs("directories")
        fs.pipe_file(f"{root}/d/f", b"x")
        with pytest.raises((OSError, ValueError)):
            fs.rm(f"{root}/d")
        assert fs.cat_file(f"{root}/d/f") == b"x"

    def test_directories(self, fs: Any, root: str) -> None:
        self.needs("empty_directories")
        fs.mkdir(f"{root}/d")
        assert fs.isdir(f"{root}/d") and fs.ls(f"{root}/d") == []
        fs.makedirs(f"{root}/x/y/z")
        assert fs.isdir(f"{root}/x/y")
        fs.makedirs(f"{root}/x/y/z", exist_ok=True)
        with pytest.raises(FileExistsError):
            fs.makedirs(f"{root}/x/y/z", exist_ok=False)
        fs.rmdir(f"{root}/x/y/z")
        assert not fs.exists(f"{root}/x/y/z")

    def test_directory_errors(self, fs: Any, root: str) -> None:
        self.needs("directories", "empty_directories")
        fs.pipe_file(f"{root}/d/f", b"x")
        with pytest.raises(FileExistsError):
            fs.mkdir(f"{root}/d")
        with pytest.raises(OSError):
            fs.rmdir(f"{root}/d")
        assert fs.cat_file(f"{root}/d/f") == b"x"

    def test_empty_directory_stays_when_its_last_file_goes(self, fs: Any, root: str) -> None:
        self.needs("empty_directories")
        fs.mkdir(f"{root}/d")
        fs.pipe_file(f"{root}/d/f", b"x")
        fs.rm(f"{root}/d/f")
        assert fs.isdir(f"{root}/d")

    def test_cp_file(self, fs: Any, root: str) -> None:
        data = noise(100_000)
        fs.pipe_file(f"{root}/a", data)
        fs.cp_file(f"{root}/a", f"{root}/b")
        assert fs.cat_file(f"{root}/b") == data
        fs.pipe_file(f"{root}/a", b"new")
        assert fs.cat_file(f"{root}/b") == data

    def test_cp_of_what_is_missing(self, fs: Any, root: str) -> None:
        with pytest.raises(FileNotFoundError):
            fs.cp_file(f"{root}/missing", f"{root}/b")

    def test_cp_tree(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/t/a": b"1", f"{root}/t/d/b": b"2"})
        fs.cp(f"{root}/t", f"{root}/copy", recursive=True)
        assert fs.cat_file(f"{root}/copy/a") == b"1" and fs.cat_file(f"{root}/copy/d/b") == b"2"
        assert fs.cat_file(f"{root}/t/a") == b"1"

    def test_mv_file(self, fs: Any, root: str) -> None:
        data = noise(100_000, 1)
        fs.pipe_file(f"{root}/a", data)
        fs.mv(f"{root}/a", f"{root}/b")
        assert not fs.exists(f"{root}/a")
        assert fs.cat_file(f"{root}/b") == data

    def test_mv_replaces(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/a": b"new", f"{root}/b": b"old and longer"})
        assert fs.cat_file(f"{root}/b") == b"old and longer"
        fs.mv(f"{root}/a", f"{root}/b")
        assert fs.cat_file(f"{root}/b") == b"new" and fs.info(f"{root}/b")["size"] == 3
        assert not fs.exists(f"{root}/a")

    def test_mv_of_what_is_missing(self, fs: Any, root: str) -> None:
        with pytest.raises(FileNotFoundError):
            fs.mv(f"{root}/missing", f"{root}/b")

    def test_mv_into_a_directory(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/f": b"1", f"{root}/d/other": b"2"})
        fs.mv(f"{root}/f", f"{root}/d/")
        assert fs.cat_file(f"{root}/d/f") == b"1" and not fs.exists(f"{root}/f")

    def test_mv_tree(self, fs: Any, root: str) -> None:
        self.needs("moves_trees")
        fs.pipe({f"{root}/t/a": b"1", f"{root}/t/d/b": b"2", f"{root}/tx": b"3"})
        fs.mv(f"{root}/t", f"{root}/moved", recursive=True)
        assert fs.cat_file(f"{root}/moved/a") == b"1" and fs.cat_file(f"{root}/moved/d/b") == b"2"
        assert not fs.exists(f"{root}/t") and fs.cat_file(f"{root}/tx") == b"3"

    def test_put_and_get_file(self, fs: Any, root: str, tmp_path: Path) -> None:
        data = noise((1 << 20) + 5, 2)
        (tmp_path / "in").write_bytes(data)
        fs.put_file(str(tmp_path / "in"), f"{root}/f")
        assert fs.cat_file(f"{root}/f") == data
        fs.get_file(f"{root}/f", str(tmp_path / "out"))
        assert (tmp_path / "out").read_bytes() == data

    def test_put_and_get_tree(self, fs: Any, root: str, tmp_path: Path) -> None:
        files = {"a": b"1", "d/b": b"2", "d/e/c": b"3"}
        for name, data in files.items():
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(data)
        fs.put(str(tmp_path / "in"), f"{root}/t", recursive=True)
        assert {name: fs.cat_file(f"{root}/t/{name}") for name in files} == files
        fs.get(f"{root}/t", str(tmp_path / "out"), recursive=True)
        assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files

    def test_callbacks_count_bytes(self, fs: Any, root: str, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(bytes(300_000))
        for transfer in (
            lambda callback: fs.put_file(str(tmp_path / "in"), f"{root}/f", callback=callback),
            lambda callback: fs.get_file(f"{root}/f", str(tmp_path / "out"), callback=callback),
        ):
            callback = Callback()
            transfer(callback)
            assert (callback.size, callback.value) == (300_000, 300_000)

    def test_get_of_what_is_missing(self, fs: Any, root: str, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            fs.get(f"{root}/missing", str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_touch(self, fs: Any, root: str) -> None:
        fs.touch(f"{root}/f")
        assert fs.info(f"{root}/f")["size"] == 0
        fs.pipe_file(f"{root}/f", b"123")
        fs.touch(f"{root}/f", truncate=True)
        assert fs.info(f"{root}/f")["size"] == 0

    def test_modified(self, fs: Any, root: str) -> None:
        self.needs("timestamps")
        before = dt.datetime.now(dt.UTC)
        fs.pipe_file(f"{root}/f", b"1")
        modified = fs.modified(f"{root}/f")
        assert modified.tzinfo is not None
        assert before - CLOCK_SLACK <= modified <= dt.datetime.now(dt.UTC) + CLOCK_SLACK
        fs.pipe_file(f"{root}/f", b"2")
        assert fs.modified(f"{root}/f") >= modified

    def test_ukey_changes_with_the_content(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"1")
        first = fs.ukey(f"{root}/f")
        assert fs.ukey(f"{root}/f") == first
        fs.pipe_file(f"{root}/f", b"22")
        assert fs.ukey(f"{root}/f") != first

    def test_mapper(self, fs: Any, root: str) -> None:
        mapper = fs.get_mapper(f"{root}/m", create=True)
        mapper["x/y"] = b"1"
        mapper["z"] = b"2"
        assert sorted(mapper) == ["x/y", "z"] and mapper["x/y"] == b"1" and "z" in mapper
        del mapper["z"]
        assert list(mapper) == ["x/y"]
        with pytest.raises(KeyError):
            mapper["z"]
