"""Routes over backends that compress and encrypt: files as ever, through fsspec, alone and as a tier of a stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdriver.backends.codecs.container import looks_coded
from fsdriver.filesystem import TierFileSystem

MARK = b"what nobody is to find on the store"
DATA = MARK * 50_000
CODING = {"compression": "zstd", "encryption_key": "ab" * 32}


def all_stored(s3_server, bucket: str) -> dict[str, bytes]:
    client = s3_server.client()
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def elsewhere(config, tier_places: Path) -> TierFileSystem:
    """Another host, which has seen nothing."""
    return TierFileSystem(config={**config, "cache": {"memory": 0, "dir": str(tier_places / "elsewhere")}})


def test_files_are_what_they_were(s3_config, s3_server, s3_bucket, tier_places):
    s3_config["backend"]["hot"].update(CODING)
    fs = TierFileSystem(config=s3_config)
    fs.pipe_file("data/d/large", DATA)
    fs.pipe_file("data/d/small", MARK)
    with fs.open("data/d/large", "ab") as file:
        file.write(b"more")
    fs.cp_file("data/d/large", "data/d/copy")
    fs.mv("data/d/large", "data/d/moved")
    stored = all_stored(s3_server, s3_bucket)
    assert {"prefix/d/copy", "prefix/d/moved", "prefix/d/small"} <= set(stored)
    for content in stored.values():
        assert MARK not in content
        assert looks_coded(content) or not content
    there = elsewhere(s3_config, tier_places)
    sizes = {one["name"].rpartition("/")[2]: one["size"] for one in there.ls("data/d", detail=True)}
    assert sizes == {"copy": len(DATA) + 4, "moved": len(DATA) + 4, "small": len(MARK)}
    assert there.cat_file("data/d/moved", 1000, 1100) == DATA[1000:1100]
    assert there.cat_file("data/d/copy") == DATA + b"more"
    assert there.cat_file("data/d/small") == MARK


@pytest.mark.parametrize("coded", ["cold", "disk"])
def test_a_tier_of_a_stack(stack_config, s3_server, s3_bucket, tier_places, coded):
    stack_config["backend"][coded] = {**stack_config["backend"][coded], **CODING}
    stack_config["route"][0]["replicate"] = ["cold"]
    stack_config["route"][0]["ack"] = 2
    fs = TierFileSystem(config=stack_config)
    fs.pipe_file("data/large", DATA)
    assert fs.cat_file("data/large") == DATA
    on_disk = (tier_places / "tier" / "large").read_bytes()
    on_s3 = all_stored(s3_server, s3_bucket)["prefix/large"]
    assert (MARK in on_disk, MARK in on_s3) == (coded == "cold", coded == "disk")
    (tier_places / "tier" / "large").unlink()
    there = elsewhere(stack_config, tier_places)
    assert there.info("data/large")["size"] == len(DATA)
    assert there.cat_file("data/large", 70_000, 70_100) == DATA[70_000:70_100]
