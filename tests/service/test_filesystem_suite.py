"""The shipped suite on the fsspec face (local route, S3 route, chained S3 URL) and on what it is compared with."""

from __future__ import annotations

import secrets
from typing import Any

import fsspec
import pytest

from fsdriver.filesystem import TierFileSystem
from fsdriver.testing.filesystem import FilesystemSuite
from tests.fixtures_tier import ROUTE


class TestLocalRoute(FilesystemSuite):
    """``tier://data`` over a directory."""

    @pytest.fixture
    def fs(self, tier_local: TierFileSystem) -> Any:
        return tier_local

    @pytest.fixture
    def root(self) -> str:
        return ROUTE


@pytest.mark.service
class TestS3Route(FilesystemSuite):
    """``tier://data/suite`` over a prefix of a bucket."""

    @pytest.fixture
    def fs(self, tier_s3: TierFileSystem) -> Any:
        return tier_s3

    @pytest.fixture
    def root(self, fs: Any) -> str:
        fs.mkdir(f"{ROUTE}/suite")
        return f"{ROUTE}/suite"


@pytest.mark.service
class TestChainedS3(FilesystemSuite):
    """``tier::s3://bucket``, without any configuration."""

    @pytest.fixture
    def fs(self, tier_places: Any, s3_bucket: str, s3_options: dict[str, str]) -> Any:
        return fsspec.url_to_fs(f"tier::s3://{s3_bucket}", s3=s3_options)[0]

    @pytest.fixture
    def root(self, s3_bucket: str) -> str:
        return s3_bucket


class TestChainedLocal(FilesystemSuite):
    """``tier::file:///directory``."""

    @pytest.fixture
    def fs(self, tier_places: Any) -> Any:
        (tier_places / "chained").mkdir()
        return fsspec.url_to_fs(f"tier::file://{tier_places}/chained")[0]

    @pytest.fixture
    def root(self, tier_places: Any) -> str:
        return f"{tier_places}/chained"


@pytest.mark.nightly
class TestChainedDirect(FilesystemSuite):
    """``tier::direct:///directory``."""

    @pytest.fixture
    def fs(self, tier_places: Any) -> Any:
        (tier_places / "chained").mkdir()
        return fsspec.url_to_fs(f"tier::direct://{tier_places}/chained")[0]

    @pytest.fixture
    def root(self, tier_places: Any) -> str:
        return f"{tier_places}/chained"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
class TestMemory(FilesystemSuite):
    """fsspec's memory filesystem: shows that the suite asks for nothing of our own making."""

    handles = False
    abort = False
    update = False
    directories = False
    shares_between_processes = False

    @pytest.fixture
    def fs(self) -> Any:
        return fsspec.filesystem("memory")

    @pytest.fixture
    def root(self, fs: Any) -> Any:
        root = f"/{secrets.token_hex(8)}"
        fs.mkdir(root)
        yield root
        fs.rm(root, recursive=True)
