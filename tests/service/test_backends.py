"""The conformance suite on every backend."""

from __future__ import annotations

import secrets

import pytest

from fsdriver.backends import open_backend
from fsdriver.config.models import BackendConfig
from tests.service.backend_suite import BackendSuite, BucketSuite, MarkerSuite, MetadataSuite, MultipartSuite, run

pytestmark = pytest.mark.service


def s3_config(server, bucket, **changes):
    settings = {
        "url": f"s3://{bucket}/in/side",
        "endpoint": server.endpoint,
        "access_key_id": server.access_key,
        "secret_access_key": server.secret_key,
    }
    return BackendConfig(**{**settings, **changes})


class _OnS3(BackendSuite, MarkerSuite, MetadataSuite, MultipartSuite, BucketSuite):
    engine = "auto"
    flat_listings_in_key_order = False  # SeaweedFS sorts segment by segment

    @pytest.fixture
    def backend(self, s3_server, s3_bucket):
        backend, _ = open_backend("test", s3_config(s3_server, s3_bucket, engine=self.engine))
        self.client = s3_server.client()
        yield backend
        run(backend.close())

    @pytest.fixture
    def prefix(self):
        return "in/side/"

    def uploads(self, backend):
        answer = self.client.list_multipart_uploads(Bucket=backend.container)
        return [one["Key"] for one in answer.get("Uploads", [])]


class TestObjectStore(_OnS3):
    pass


class TestS3fs(_OnS3):
    engine = "fsspec"


class TestLocal(BackendSuite, MarkerSuite, MetadataSuite):
    file_and_directory = False

    @pytest.fixture
    def backend(self, tmp_path):
        root = tmp_path / "root"
        root.mkdir()
        backend, self.key_prefix = open_backend("test", BackendConfig(url=f"file://{root}"))
        yield backend
        run(backend.close())

    @pytest.fixture
    def prefix(self, backend):
        return f"{self.key_prefix}/"


class TestMemory(BackendSuite, MarkerSuite):
    file_and_directory = False

    @pytest.fixture
    def backend(self):
        backend, self.key_prefix = open_backend("test", BackendConfig(url=f"memory://{secrets.token_hex(4)}/x"))
        yield backend
        run(backend.close())

    @pytest.fixture
    def prefix(self, backend):
        return f"{self.key_prefix}/"
