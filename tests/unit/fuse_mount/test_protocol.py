"""The wire formats have the sizes of the kernel's structures."""

from __future__ import annotations

import pytest

from fsdriver.fuse_mount import protocol


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        ("IN_HEADER", 40), ("OUT_HEADER", 16), ("ATTR", 88), ("ENTRY_HEAD", 40), ("ATTR_HEAD", 16), ("STATX_HEAD", 32),
        ("STATX", 256), ("OPEN_OUT", 16), ("INIT_OUT", 64), ("STATFS_OUT", 80), ("DIRENT", 24), ("SETATTR_IN", 88),
        ("READ_IN", 40), ("WRITE_IN", 40), ("CREATE_IN", 16), ("RELEASE_IN", 24), ("FALLOCATE_IN", 32), ("LSEEK_IN", 24),
        ("COPY_FILE_RANGE_IN", 56), ("INVAL_INODE_OUT", 24), ("INVAL_ENTRY_OUT", 16), ("BACKING_MAP", 16),
    ],
)  # fmt: skip
def test_sizes(layout, size):
    assert getattr(protocol, layout).size == size


def test_names_keep_every_byte():
    body = memoryview(b"\xff\xfe name\0")
    assert protocol.name_of(body).encode("utf-8", "surrogateescape") == b"\xff\xfe name"
    assert protocol.names_of(memoryview(b"....old\0new\0"), 4) == ("old", "new")


def test_directory_entries_are_aligned():
    for length in range(1, 20):
        assert len(protocol.pack_dirent(1, 2, b"x" * length, 8)) % 8 == 0


def test_forgets():
    body = protocol.BATCH_FORGET_IN.pack(2, 0) + protocol.FORGET_ONE.pack(5, 1) + protocol.FORGET_ONE.pack(6, 3)
    assert protocol.unpack_forgets(memoryview(body)) == [(5, 1), (6, 3)]
