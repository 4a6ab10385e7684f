"""Consumers run on a tree that the user's own configuration file describes, over a directory and S3, and on chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fsdriver.testing.servers import S3Service
from tests.fixtures_tier import ROUTE


@dataclass(frozen=True)
class Place:
    """A directory by URL, and the storage options its users pass."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(
    params=["local", pytest.param("s3", marks=pytest.mark.service), pytest.param("chained", marks=pytest.mark.service)]
)
def place(request: pytest.FixtureRequest, tier_places: Path) -> Place:
    """``tier://data/work`` over a directory and over S3, and ``tier::s3://bucket/work``."""
    if request.param == "chained":
        bucket: str = request.getfixturevalue("s3_bucket")
        return Place(f"tier::s3://{bucket}/work", {"s3": request.getfixturevalue("s3_options")})
    write: Callable[[dict[str, Any]], Path] = request.getfixturevalue("config_file")
    write(request.getfixturevalue(f"{request.param}_config"))
    return Place(f"tier://{ROUTE}/work")


@pytest.fixture
def client(s3_server: S3Service) -> Any:
    """A plain S3 client: what another tool sees."""
    return s3_server.client()
