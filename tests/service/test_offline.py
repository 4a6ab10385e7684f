"""The fsspec face while the store is out of reach: what has no name here yet is written all the same, and overwrites nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.errors import Unreachable
from fsdriver.filesystem import TierFileSystem
from fsdriver.runtime import run
from fsdriver.testing.servers import S3Service
from tests.servers import FaultyProxy
from tests.waiting import wait_for

pytestmark = pytest.mark.service


@pytest.fixture
def proxy(s3_server: S3Service) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.mark.parametrize("write", ["back", "through"])
def test_new_names_where_nothing_was_listed(
    s3_config: dict[str, Any], s3_server: S3Service, s3_bucket: str, proxy: FaultyProxy, tier_places: Path, write: str
) -> None:
    client = s3_server.client()
    client.put_object(Bucket=s3_bucket, Key="prefix/never/listed/taken", Body=b"theirs")
    s3_config["backend"]["hot"] |= {"endpoint": proxy.endpoint, "retries": 1}
    s3_config["route"][0]["write"] = write
    fs = TierFileSystem(config=s3_config)
    fs.pipe_file("data/before", b"before")
    engine = open_engine(Config.model_validate(s3_config))
    run(engine.drain(60))
    proxy.refuse()
    if write == "through":
        with pytest.raises(Unreachable):
            fs.pipe_file("data/never/listed/new", b"ours")
        proxy.accept()
        return
    fs.pipe_file("data/never/listed/new", b"ours")
    with fs.open("data/never/listed/taken", "wb") as file:
        file.write(b"ours too")
    assert fs.cat_file("data/never/listed/new") == b"ours"
    with pytest.raises(Unreachable):
        fs.info("data/never/asked/for")
    proxy.accept()
    wait_for(lambda: not engine.owes())
    there = {
        one["Key"]: client.get_object(Bucket=s3_bucket, Key=one["Key"])["Body"].read()
        for one in client.list_objects_v2(Bucket=s3_bucket, Prefix="prefix/never/")["Contents"]
    }
    assert there.pop("prefix/never/listed/taken") == b"theirs"
    assert there.pop("prefix/never/listed/new") == b"ours"
    ((kept, data),) = there.items()
    assert kept.startswith("prefix/never/listed/taken.conflict-")
    assert data == b"ours too"
