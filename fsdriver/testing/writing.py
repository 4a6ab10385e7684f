"""Writing: nothing shows before close, all of it after; an exception or a transaction that fails leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from fsdriver.testing.base import Abilities, noise


class Interrupted(Exception):
    """Raised by the tests inside ``with``."""


class WritingTests(Abilities):
    """Part of `fsdriver.testing.filesystem.FilesystemSuite`."""

    def test_write(self, fs: Any, root: str) -> None:
        with fs.open(f"{root}/f", "wb") as file:
            assert file.writable()
            assert file.write(b"one") == 3
            file.write(memoryview(b"two"))
            assert file.tell() == 6
            file.writelines([b"three", b"four"])
        assert file.closed or not self.handles
        assert fs.cat_file(f"{root}/f") == b"onetwothreefour"

    def test_write_nothing(self, fs: Any, root: str) -> None:
        with fs.open(f"{root}/f", "wb"):
            pass
        assert fs.info(f"{root}/f")["size"] == 0

    def test_write_shows_at_close(self, fs: Any, root: str) -> None:
        self.needs("abort")
        fs.pipe_file(f"{root}/f", b"old")
        with fs.open(f"{root}/f", "wb") as file:
            file.write(noise(100_000))
            file.flush()
            assert fs.cat_file(f"{root}/f") == b"old"
        assert fs.cat_file(f"{root}/f") == noise(100_000)

    def test_overwrite_with_less(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", noise(200_000))
        with fs.open(f"{root}/f", "wb") as file:
            file.write(b"short")
        assert fs.cat_file(f"{root}/f") == b"short"

    def test_write_large(self, fs: Any, root: str) -> None:
        data = noise((11 << 20) + 3, 5)
        with fs.open(f"{root}/f", "wb") as file:
            for start in range(0, len(data), 700_001):
                file.write(data[start : start + 700_001])
        assert fs.info(f"{root}/f")["size"] == len(data)
        assert fs.cat_file(f"{root}/f") == data

    def test_write_makes_parents(self, fs: Any, root: str) -> None:
        fs.makedirs(f"{root}/x/y", exist_ok=True)
        with fs.open(f"{root}/x/y/f", "wb") as file:
            file.write(b"1")
        assert fs.isdir(f"{root}/x") and fs.isdir(f"{root}/x/y") and fs.isfile(f"{root}/x/y/f")

    def test_text(self, fs: Any, root: str) -> None:
        with fs.open(f"{root}/f", "w", encoding="utf-8", newline="\r\n") as file:
            file.write("grün\nrot")
        assert fs.cat_file(f"{root}/f") == "grün\r\nrot".encode()
        fs.write_text(f"{root}/g", "text")
        assert fs.read_text(f"{root}/g") == "text"

    @pytest.mark.parametrize("mode", ["wb", "w"])
    def test_exception_leaves_the_old_object(self, fs: Any, root: str, mode: str) -> None:
        self.needs("abort")
        fs.pipe_file(f"{root}/f", b"old")
        for path in (f"{root}/f", f"{root}/new"):
            with pytest.raises(Interrupted), fs.open(path, mode) as file:
                file.write("half" if mode == "w" else b"half")
                raise Interrupted
        assert fs.cat_file(f"{root}/f") == b"old"
        assert not fs.exists(f"{root}/new")

    def test_discard(self, fs: Any, root: str) -> None:
        self.needs("abort")
        fs.pipe_file(f"{root}/f", b"old")
        file = fs.open(f"{root}/f", "wb")
        file.write(b"half")
        file.discard()
        assert fs.cat_file(f"{root}/f") == b"old"

    def test_append(self, fs: Any, root: str) -> None:
        self.needs("append")
        for part in (b"one", b"two", b"three"):
            with fs.open(f"{root}/f", "ab") as file:
                file.write(part)
        assert fs.cat_file(f"{root}/f") == b"onetwothree"
        assert fs.info(f"{root}/f")["size"] == 11

    def test_append_to_a_large_file(self, fs: Any, root: str) -> None:
        self.needs("append")
        data = noise((6 << 20) + 1, 6)
        fs.pipe_file(f"{root}/f", data)
        with fs.open(f"{root}/f", "ab") as file:
            file.write(b"tail")
        assert fs.cat_file(f"{root}/f") == data + b"tail"

    def test_update_in_place(self, fs: Any, root: str) -> None:
        self.needs("update")
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "r+b") as file:
            assert file.read(2) == b"01"
            file.seek(4)
            file.write(b"XY")
            file.seek(-1, 2)
            assert file.read() == b"9"
            file.truncate(8)
        assert fs.cat_file(f"{root}/f") == b"0123XY67"

    def test_update_of_what_is_missing(self, fs: Any, root: str) -> None:
        self.needs("update")
        with pytest.raises(FileNotFoundError):
            fs.open(f"{root}/missing", "r+b")

    def test_exclusive(self, fs: Any, root: str) -> None:
        self.needs("exclusive")
        with fs.open(f"{root}/f", "xb") as file:
            file.write(b"first")
        with pytest.raises(FileExistsError), fs.open(f"{root}/f", "xb") as file:
            file.write(b"second")
        assert fs.cat_file(f"{root}/f") == b"first"

    def test_exclusive_has_one_winner(self, fs: Any, root: str) -> None:
        self.needs("exclusive", "abort")
        one, two = fs.open(f"{root}/f", "xb"), fs.open(f"{root}/f", "xb")
        one.write(b"one")
        two.write(b"two")
        one.close()
        with pytest.raises(FileExistsError):
            two.close()
        assert fs.cat_file(f"{root}/f") == b"one"

    def test_pipe_exclusive(self, fs: Any, root: str) -> None:
        self.needs("exclusive")
        fs.pipe_file(f"{root}/f", b"1", mode="create")
        with pytest.raises(FileExistsError):
            fs.pipe_file(f"{root}/f", b"2", mode="create")
        fs.pipe_file(f"{root}/f", b"3", mode="overwrite")
        assert fs.cat_file(f"{root}/f") == b"3"

    def test_transaction(self, fs: Any, root: str) -> None:
        self.needs("transactions")
        fs.pipe_file(f"{root}/a", b"old")
        with fs.transaction:
            for name in ("a", "b"):
                with fs.open(f"{root}/{name}", "wb") as file:
                    file.write(b"new")
            assert fs.cat_file(f"{root}/a") == b"old"
            assert not fs.exists(f"{root}/b")
        assert fs.cat_file(f"{root}/a") == b"new" and fs.cat_file(f"{root}/b") == b"new"

    def test_transaction_that_fails(self, fs: Any, root: str) -> None:
        self.needs("transactions")
        fs.pipe_file(f"{root}/a", b"old")
        with pytest.raises(Interrupted), fs.transaction:
            for name in ("a", "b"):
                with fs.open(f"{root}/{name}", "wb") as file:
                    file.write(b"new")
            raise Interrupted
        assert fs.cat_file(f"{root}/a") == b"old"
        assert not fs.exists(f"{root}/b")

    def test_readers_keep_their_version(self, fs: Any, root: str) -> None:
        self.needs("abort")
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file:
            assert file.read(2) == b"01"
            fs.pipe_file(f"{root}/f", b"abcdefghij")
            assert file.read(2) == b"23"
        assert fs.cat_file(f"{root}/f") == b"abcdefghij"
