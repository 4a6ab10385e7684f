"""Staging files: what stays of them, whatever happens."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

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
