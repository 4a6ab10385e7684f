"""fsspec's own conformance suite on a local route, an S3 route and a chained URL."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest
from fsspec.tests import abstract

from fsdriver.filesystem import TierFileSystem
from tests.fixtures_tier import ROUTE


class LocalRoute(abstract.AbstractFixtures):
    """``tier://data`` over a directory."""

    @pytest.fixture
    def fs(self, tier_local: TierFileSystem) -> Any:
        return tier_local

    @pytest.fixture
    def fs_path(self) -> str:
        return ROUTE


class S3Route(abstract.AbstractFixtures):
    """``tier://data`` over a prefix of a bucket."""

    @pytest.fixture
    def fs(self, tier_s3: TierFileSystem) -> Any:
        return tier_s3

    @pytest.fixture
    def fs_path(self) -> str:
        return ROUTE


class ChainedS3(abstract.AbstractFixtures):
    """``tier::s3://bucket/path``."""

    @pytest.fixture
    def fs(self, tier_places: Any, s3_bucket: str, s3_options: dict[str, str]) -> Any:
        return fsspec.url_to_fs(f"tier::s3://{s3_bucket}", s3=s3_options)[0]

    @pytest.fixture
    def fs_path(self, fs: Any, s3_bucket: str) -> str:
        fs.mkdir(f"{s3_bucket}/path")
        return f"{s3_bucket}/path"


class TestCopyLocal(abstract.AbstractCopyTests, LocalRoute):
    """cp on a local route."""


class TestGetLocal(abstract.AbstractGetTests, LocalRoute):
    """get on a local route."""


class TestPutLocal(abstract.AbstractPutTests, LocalRoute):
    """put on a local route."""


class TestOpenLocal(abstract.AbstractOpenTests, LocalRoute):
    """open on a local route."""


class TestPipeLocal(abstract.AbstractPipeTests, LocalRoute):
    """pipe on a local route."""


@pytest.mark.service
class TestCopyS3(abstract.AbstractCopyTests, S3Route):
    """cp on an S3 route."""


@pytest.mark.service
class TestGetS3(abstract.AbstractGetTests, S3Route):
    """get on an S3 route."""


@pytest.mark.service
class TestPutS3(abstract.AbstractPutTests, S3Route):
    """put on an S3 route."""


@pytest.mark.service
class TestOpenS3(abstract.AbstractOpenTests, S3Route):
    """open on an S3 route."""


@pytest.mark.service
class TestPipeS3(abstract.AbstractPipeTests, S3Route):
    """pipe on an S3 route."""


@pytest.mark.service
class TestCopyChained(abstract.AbstractCopyTests, ChainedS3):
    """cp on a chained URL."""


@pytest.mark.service
class TestGetChained(abstract.AbstractGetTests, ChainedS3):
    """get on a chained URL."""


@pytest.mark.service
class TestPutChained(abstract.AbstractPutTests, ChainedS3):
    """put on a chained URL."""


@pytest.mark.service
class TestOpenChained(abstract.AbstractOpenTests, ChainedS3):
    """open on a chained URL."""


@pytest.mark.service
class TestPipeChained(abstract.AbstractPipeTests, ChainedS3):
    """pipe on a chained URL."""
