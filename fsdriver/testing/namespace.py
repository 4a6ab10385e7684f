"""The namespace: ls, info, find, walk, glob and du tell one story."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest

from fsdriver.testing.base import Abilities

FILES = {
    "a.txt": b"a",
    "ab.txt": b"ab",
    "d/one.csv": b"1",
    "d/two.csv": b"22",
    "d/deep/three.csv": b"333",
    "d/deep/er/four.txt": b"4444",
    "dx/five.csv": b"55555",
}
DIRECTORIES = {"d", "d/deep", "d/deep/er", "dx"}
NAMES = [
    "with space", "ünï.txt", "плюс+", "hash#", "per%cent", "per%20cent", "~tilde", ".hidden", "a=1,b=2", "quote'\"",
    "semi;colon", "x" * 200,
]  # fmt: skip


class NamespaceTests(Abilities):
    """Part of `fsdriver.testing.filesystem.FilesystemSuite`."""

    @pytest.fixture
    def tree(self, fs: Any, root: str) -> str:
        """A small tree: see `FILES`."""
        for name in sorted(DIRECTORIES):
            fs.makedirs(f"{root}/{name}", exist_ok=True)
        fs.pipe({f"{root}/{name}": data for name, data in FILES.items()})
        return root

    @staticmethod
    def relative(fs: Any, root: str, paths: Any) -> list[str]:
        """Names below ``root``, sorted."""
        strip = fs._strip_protocol  # noqa: SLF001 - fsspec's way from URL to path
        base = strip(root).strip("/")
        return sorted(posixpath.relpath(strip(path).strip("/"), base) for path in paths)

    def test_ls(self, fs: Any, tree: str) -> None:
        assert self.relative(fs, tree, fs.ls(tree, detail=False)) == ["a.txt", "ab.txt", "d", "dx"]
        detail = {posixpath.basename(entry["name"].rstrip("/")): entry for entry in fs.ls(tree, detail=True)}
        assert {name: entry["type"] for name, entry in detail.items()} == {
            "a.txt": "file", "ab.txt": "file", "d": "directory", "dx": "directory",
        }  # fmt: skip
        assert detail["ab.txt"]["size"] == 2

    def test_ls_of_a_file(self, fs: Any, tree: str) -> None:
        entries = fs.ls(f"{tree}/a.txt", detail=True)
        assert [(entry["type"], entry["size"]) for entry in entries] == [("file", 1)]
        assert self.relative(fs, tree, fs.ls(f"{tree}/a.txt", detail=False)) == ["a.txt"]

    def test_ls_of_what_is_missing(self, fs: Any, tree: str) -> None:
        with pytest.raises(FileNotFoundError):
            fs.ls(f"{tree}/missing")

    def test_ls_with_a_trailing_slash(self, fs: Any, tree: str) -> None:
        assert self.relative(fs, tree, fs.ls(f"{tree}/d/", detail=False)) == ["d/deep", "d/one.csv", "d/two.csv"]

    def test_info_agrees_with_ls(self, fs: Any, tree: str) -> None:
        for entry in fs.ls(tree, detail=True) + fs.ls(f"{tree}/d", detail=True):
            info = fs.info(entry["name"])
            assert {key: info[key] for key in ("name", "type")} == {key: entry[key] for key in ("name", "type")}
            if entry["type"] == "file":
                assert info["size"] == entry["size"]

    def test_names_can_be_used_again(self, fs: Any, tree: str) -> None:
        for path, data in ((path, FILES[self.relative(fs, tree, [path])[0]]) for path in fs.find(tree)):
            assert fs.cat_file(path) == data
            assert fs.cat_file(fs.unstrip_protocol(path)) == data

    def test_exists(self, fs: Any, tree: str) -> None:
        assert fs.exists(f"{tree}/a.txt") and fs.exists(f"{tree}/d") and fs.exists(f"{tree}/d/deep/er")
        assert not fs.exists(f"{tree}/a") and not fs.exists(f"{tree}/d/de") and not fs.exists(f"{tree}/a.txt/x")
        assert fs.isfile(f"{tree}/a.txt") and not fs.isfile(f"{tree}/d") and not fs.isfile(f"{tree}/missing")
        assert fs.isdir(f"{tree}/d") and not fs.isdir(f"{tree}/a.txt") and not fs.isdir(f"{tree}/missing")

    def test_find(self, fs: Any, tree: str) -> None:
        assert self.relative(fs, tree, fs.find(tree)) == sorted(FILES)
        assert self.relative(fs, tree, fs.find(f"{tree}/d")) == sorted(name for name in FILES if name.startswith("d/"))
        assert self.relative(fs, tree, fs.find(f"{tree}/a.txt")) == ["a.txt"]
        assert fs.find(f"{tree}/missing") == []

    def test_find_with_directories(self, fs: Any, tree: str) -> None:
        found = self.relative(fs, tree, fs.find(tree, withdirs=True))
        assert [name for name in found if name != "."] == sorted([*FILES, *DIRECTORIES])

    def test_find_with_a_depth(self, fs: Any, tree: str) -> None:
        assert self.relative(fs, tree, fs.find(tree, maxdepth=1)) == ["a.txt", "ab.txt"]
        shallow = sorted(name for name in FILES if name.count("/") <= 1)
        assert self.relative(fs, tree, fs.find(tree, maxdepth=2)) == shallow

    def test_find_with_detail(self, fs: Any, tree: str) -> None:
        found = fs.find(tree, detail=True)
        assert {self.relative(fs, tree, [path])[0]: info["size"] for path, info in found.items()} == {
            name: len(data) for name, data in FILES.items()
        }
        assert all(info["name"] == path and info["type"] == "file" for path, info in found.items())

    def test_walk(self, fs: Any, tree: str) -> None:
        seen_files, seen_directories = set(), set()
        for path, directories, files in fs.walk(tree):
            seen_files |= {f"{path}/{name}" for name in files}
            seen_directories |= {f"{path}/{name}" for name in directories}
        assert self.relative(fs, tree, seen_files) == sorted(FILES)
        assert self.relative(fs, tree, seen_directories) == sorted(DIRECTORIES)

    def test_walk_bottom_up(self, fs: Any, tree: str) -> None:
        order = [self.relative(fs, tree, [path])[0] for path, _, _ in fs.walk(tree, topdown=False)]
        assert order[-1] == "."
        assert order.index("d/deep/er") < order.index("d/deep") < order.index("d")

    def test_walk_with_a_depth(self, fs: Any, tree: str) -> None:
        assert [self.relative(fs, tree, [path])[0] for path, _, _ in fs.walk(tree, maxdepth=1)] == ["."]

    def test_du(self, fs: Any, tree: str) -> None:
        assert fs.du(tree) == sum(map(len, FILES.values()))
        assert sum(fs.du(tree, total=False).values()) == fs.du(tree)
        assert fs.du(f"{tree}/a.txt") == 1

    @pytest.mark.parametrize(
        ("pattern", "wanted"),
        [
            ("*.txt", ["a.txt", "ab.txt"]),
            ("a*", ["a.txt", "ab.txt"]),
            ("a?.txt", ["ab.txt"]),
            ("[a]*.txt", ["a.txt", "ab.txt"]),
            ("d/*.csv", ["d/one.csv", "d/two.csv"]),
            ("*/*.csv", ["d/one.csv", "d/two.csv", "dx/five.csv"]),
            ("d*/*.csv", ["d/one.csv", "d/two.csv", "dx/five.csv"]),
            ("**/*.csv", ["d/deep/three.csv", "d/one.csv", "d/two.csv", "dx/five.csv"]),
            ("d/**/*.txt", ["d/deep/er/four.txt"]),
            ("d/deep/three.csv", ["d/deep/three.csv"]),
            ("nothing*", []),
            ("missing.csv", []),
        ],
    )
    def test_glob(self, fs: Any, tree: str, pattern: str, wanted: list[str]) -> None:
        assert self.relative(fs, tree, fs.glob(f"{tree}/{pattern}")) == wanted

    def test_glob_with_detail(self, fs: Any, tree: str) -> None:
        found = fs.glob(f"{tree}/d/*", detail=True)
        assert {self.relative(fs, tree, [path])[0]: info["type"] for path, info in found.items()} == {
            "d/one.csv": "file", "d/two.csv": "file", "d/deep": "directory",
        }  # fmt: skip

    @pytest.mark.parametrize("name", NAMES)
    def test_odd_names(self, fs: Any, root: str, name: str) -> None:
        fs.pipe_file(f"{root}/{name}", b"odd")
        assert fs.cat_file(f"{root}/{name}") == b"odd"
        assert self.relative(fs, root, fs.ls(root, detail=False)) == [name]
        assert self.relative(fs, root, fs.find(root)) == [name]
        fs.rm(f"{root}/{name}")
        assert not fs.exists(f"{root}/{name}")

    def test_changes_show_at_once(self, fs: Any, root: str) -> None:
        assert fs.ls(root) == []
        assert not fs.exists(f"{root}/f")
        fs.pipe_file(f"{root}/f", b"1")
        assert fs.exists(f"{root}/f") and len(fs.ls(root)) == 1
        fs.pipe_file(f"{root}/f", b"22")
        assert fs.info(f"{root}/f")["size"] == 2 and fs.ls(root, detail=True)[0]["size"] == 2
        fs.rm(f"{root}/f")
        assert fs.ls(root) == [] and not fs.exists(f"{root}/f")
