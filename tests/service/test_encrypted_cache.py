"""An encrypted cache behind the fsspec face, over a real S3 server."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from fsdriver.filesystem import TierFileSystem
from tests.waiting import wait_for

MARK = b"what nobody is to find on this disk"
DATA = MARK * 100_000


def found(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and MARK in path.read_bytes()]


def test_nothing_of_what_is_written_and_read_stays_in_the_clear(s3_config, tier_places):
    key = tier_places / "key"
    key.write_text("11" * 32)
    secret = {"encryption_key": {"file": str(key)}}
    fs = TierFileSystem(config={**s3_config, "cache": secret})
    fs.pipe_file("data/written", DATA)
    fs.pipe_file("data/small", MARK)
    with fs.open("data/written") as file:
        assert file.read() == DATA
        file.seek(70_001)
        assert file.read(10) == DATA[70_001:70_011]
        with pytest.raises(io.UnsupportedOperation, match="no local file"):  # there is no file of these bytes to map
            file.fileno()
    wait_for(lambda: not found(tier_places / "cache"))
    fs.get_file("data/written", str(tier_places / "copy"))
    assert (tier_places / "copy").read_bytes() == DATA
    (tier_places / "copy").unlink()
    fs.mv("data/written", "data/renamed")
    assert fs.cat_file("data/renamed") == DATA
    with fs.open("data/renamed", "ab") as file:
        file.write(b"more")
    assert fs.cat_ranges(["data/renamed"] * 2, [5, len(DATA)], [9, len(DATA) + 4]) == [DATA[5:9], b"more"]
    assert fs.cat_file("data/small") == MARK
    assert found(tier_places / "cache") == []
    assert found(tier_places / "state") == []

    # Without the key, and with another one: the store is asked, and the same bytes come.
    for other in ({}, {"encryption_key": "22" * 32}):
        there = TierFileSystem(config={**s3_config, "cache": other})
        assert there.cat_file("data/renamed") == DATA + b"more"
        assert there.cat_file("data/small") == MARK
    assert found(tier_places / "cache"), "without a key it is as it was"
