"""Reading: seeks, short reads, ranges, text, many readers of one file."""

from __future__ import annotations

import io
import os
import random
from typing import Any

import pytest

from fsdriver.testing.base import Abilities, noise

LARGE = (3 << 20) + 17


class ReadingTests(Abilities):
    """Part of `fsdriver.testing.filesystem.FilesystemSuite`."""

    def test_read_whole(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file:
            assert file.read() == b"0123456789"
            assert file.read() == b""
            assert file.tell() == 10

    def test_read_empty(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"")
        assert fs.cat_file(f"{root}/f") == b""
        assert fs.info(f"{root}/f")["size"] == 0
        with fs.open(f"{root}/f", "rb") as file:
            assert file.read(10) == b""

    def test_short_read_at_the_end(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file:
            assert file.read(4) == b"0123"
            assert file.read(100) == b"456789"
            assert file.read(1) == b""
            assert file.read(0) == b""

    def test_seek(self, fs: Any, root: str) -> None:
        self.needs("handles")
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file:
            assert file.seekable() and file.readable() and not file.writable()
            assert file.seek(4) == 4
            assert file.read(2) == b"45"
            assert file.seek(-3, os.SEEK_CUR) == 3
            assert file.read(1) == b"3"
            assert file.seek(-2, os.SEEK_END) == 8
            assert file.read() == b"89"
            assert file.seek(0) == 0
            assert file.read(1) == b"0"

    def test_seek_past_the_end_reads_nothing(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file:
            file.seek(1000)
            assert file.read(5) == b""
            file.seek(9)
            assert file.read(5) == b"9"

    def test_seek_before_the_beginning_is_refused(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file, pytest.raises((ValueError, OSError)):
            file.seek(-1)

    def test_readinto(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"0123456789")
        buffer = bytearray(4)
        with fs.open(f"{root}/f", "rb") as file:
            file.seek(7)
            assert file.readinto(buffer) == 3
        assert bytes(buffer[:3]) == b"789"

    def test_lines(self, fs: Any, root: str) -> None:
        data = b"first\n\nthird\r\nlast without end"
        fs.pipe_file(f"{root}/f", data)
        with fs.open(f"{root}/f", "rb") as file:
            assert file.readline() == b"first\n"
            assert list(file) == [b"\n", b"third\r\n", b"last without end"]

    def test_text(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", "grün\r\nблуе\n".encode())
        with fs.open(f"{root}/f", "r", encoding="utf-8") as file:
            assert file.read() == "grün\nблуе\n"
        with fs.open(f"{root}/f", "r", encoding="utf-8", newline="") as file:
            assert file.readline() == "grün\r\n"

    def test_random_reads_of_a_large_file(self, fs: Any, root: str) -> None:
        data, choose = noise(LARGE), random.Random(1)
        fs.pipe_file(f"{root}/f", data)
        fs.invalidate_cache()
        with fs.open(f"{root}/f", "rb") as file:
            for _ in range(60):
                position, count = choose.randrange(LARGE), choose.choice((1, 4096, 100_000, 1 << 20))
                file.seek(position)
                assert file.read(count) == data[position : position + count]
            file.seek(0)
            assert file.read() == data

    def test_sequential_reads_of_a_large_file(self, fs: Any, root: str) -> None:
        data = noise(LARGE, 2)
        fs.pipe_file(f"{root}/f", data)
        fs.invalidate_cache()
        with fs.open(f"{root}/f", "rb") as file:
            assert b"".join(iter(lambda: file.read(65_537), b"")) == data

    def test_two_handles_have_their_own_positions(self, fs: Any, root: str) -> None:
        self.needs("handles")
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as one, fs.open(f"{root}/f", "rb") as two:
            assert one.read(3) == b"012"
            assert two.read(5) == b"01234"
            assert one.read(3) == b"345"
            assert two.tell() == 5

    def test_closed_file_refuses(self, fs: Any, root: str) -> None:
        self.needs("handles")
        fs.pipe_file(f"{root}/f", b"0123456789")
        file = fs.open(f"{root}/f", "rb")
        file.close()
        file.close()
        assert file.closed
        with pytest.raises(ValueError):
            file.read(1)

    def test_read_only_file_refuses_writing(self, fs: Any, root: str) -> None:
        self.needs("handles")
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file, pytest.raises((ValueError, io.UnsupportedOperation)):
            file.write(b"x")

    def test_missing_file(self, fs: Any, root: str) -> None:
        with pytest.raises(FileNotFoundError):
            fs.open(f"{root}/missing", "rb").read()
        with pytest.raises(FileNotFoundError):
            fs.cat_file(f"{root}/missing")
        with pytest.raises(FileNotFoundError):
            fs.info(f"{root}/missing")

    def test_reading_a_directory(self, fs: Any, root: str) -> None:
        self.needs("directories")
        fs.pipe_file(f"{root}/d/f", b"x")
        with pytest.raises(IsADirectoryError):
            fs.open(f"{root}/d", "rb").read()

    @pytest.mark.parametrize(
        ("start", "end"),
        [(None, None), (0, 4), (3, None), (None, 4), (-3, None), (2, -2), (-5, -1), (8, 100), (10, 20), (4, 4)],
    )
    def test_ranges_are_slices(self, fs: Any, root: str, start: int | None, end: int | None) -> None:
        data = b"0123456789"
        fs.pipe_file(f"{root}/f", data)
        if (start, end) in {(10, 20), (4, 4)}:
            self.needs("empty_ranges")
        assert fs.cat_file(f"{root}/f", start=start, end=end) == data[start:end]

    def test_cat_many(self, fs: Any, root: str) -> None:
        fs.pipe({f"{root}/a": b"1", f"{root}/b": b"2"})
        assert {name.rsplit("/", 1)[-1]: value for name, value in fs.cat([f"{root}/a", f"{root}/b"]).items()} == {
            "a": b"1",
            "b": b"2",
        }
        with pytest.raises(FileNotFoundError):
            fs.cat([f"{root}/a", f"{root}/missing"])
        kept = fs.cat([f"{root}/a", f"{root}/missing"], on_error="omit")
        assert list(kept.values()) == [b"1"]

    def test_cat_ranges_keeps_order(self, fs: Any, root: str) -> None:
        one, two = noise(300_000, 3), noise(50_000, 4)
        fs.pipe({f"{root}/one": one, f"{root}/two": two})
        paths = [f"{root}/one", f"{root}/two", f"{root}/one", f"{root}/one", f"{root}/two"]
        starts, ends = [200_000, 0, 5, 299_990, 49_000], [250_000, 10, 6, 300_000, 50_000]
        wanted = [one[200_000:250_000], two[:10], one[5:6], one[299_990:], two[49_000:]]
        assert [bytes(part) for part in fs.cat_ranges(paths, starts, ends)] == wanted

    def test_cat_ranges_of_a_missing_file(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"0123456789")
        parts = fs.cat_ranges([f"{root}/f", f"{root}/missing"], [1, 0], [3, 3], on_error="return")
        assert parts[0] == b"12"
        assert isinstance(parts[1], FileNotFoundError)
        with pytest.raises(FileNotFoundError):
            fs.cat_ranges([f"{root}/f", f"{root}/missing"], [1, 0], [3, 3], on_error="raise")

    def test_head_tail_and_blocks(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"one\ntwo\nthree\n")
        assert fs.head(f"{root}/f", 5) == b"one\nt"
        assert fs.tail(f"{root}/f", 6) == b"three\n"
        assert fs.read_block(f"{root}/f", 1, 3, delimiter=b"\n") == b"two\n"

    def test_compression(self, fs: Any, root: str) -> None:
        with fs.open(f"{root}/f.gz", "wb", compression="infer") as file:
            file.write(b"text " * 1000)
        assert fs.info(f"{root}/f.gz")["size"] < 1000
        with fs.open(f"{root}/f.gz", "rb", compression="infer") as file:
            assert file.read() == b"text " * 1000
