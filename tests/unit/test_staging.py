"""Staging files: what stays of them, whatever happens."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest

from fsdriver.errors import NoSpace
from fsdriver.writeback.staging import Staging

MIB = 1 << 20


def test_of_a_copy_that_finds_no_room_nothing_stays(tmp_path: Path) -> None:
    staging = Staging(tmp_path / ".staging")
    source = tmp_path / "source"
    source.write_bytes(bytes(3 * MIB))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            staging.snapshot(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert list(staging.directory.iterdir()) == []
    assert staging.snapshot(source).stat().st_size == 3 * MIB


def test_a_directory_that_was_removed_is_made_again(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "cache" / ".staging")
    shutil.rmtree(tmp_path / "cache")
    staged = staging.new(None)
    staged.fill(b"bytes")
    assert staged.path.read_bytes() == b"bytes"
    for directory in (staging.directory, staging.directory.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    staging.release(staged)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    staging = Staging(tmp_path / ".staging")
    monkeypatch.setattr(os, "open", refuse)  # a quota takes a file system and a user of its own
    with pytest.raises(NoSpace, match="free space") as raised:
        staging.new(None)
    assert raised.value.errno == errno.ENOSPC


def test_the_status_of_a_file_that_another_thread_has_just_closed(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "cache" / ".staging")
    staged = staging.new("")
    staged.fill(b"12345")
    status = staged.status()
    assert status is not None
    assert status.st_size == 5
    staging.release(staged)
    assert staged.status() is None
