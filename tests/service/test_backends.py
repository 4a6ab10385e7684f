"""The conformance suite on every backend."""

from __future__ import annotations

import secrets

import pytest

from fsdriver.backends import open_backend
from fsdriver.backends.base import ABSENT
from fsdriver.config.models import BackendConfig
from fsdriver.errors import Stale
from tests.service.backend_suite import (
    BackendSuite,
    BucketSuite,
    MarkerSuite,
    MetadataSuite,
    MultipartSuite,
    listing,
    run,
)

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
    def test_small_changes_at_once(self, backend, prefix):
        put, copy, delete = backend.put_now, backend.copy_now, backend.delete_now
        one = put(f"{prefix}a b+é%0A", b"content", {"fsdriver-mode": "0644"}, ABSENT)
        assert run(backend.head(one.key)).version == one.version
        assert put(one.key, b"other", None, ABSENT) is None
        two = copy(7, one.key, f"{prefix}to/ü", one.version, ABSENT)
        assert bytes(run(backend.get(two.key))) == b"content"
        assert run(backend.head(two.key)).metadata == {"fsdriver-mode": "0644"}
        assert two.version == run(backend.head(two.key)).version
        assert copy(7, one.key, two.key, one.version, ABSENT) is None
        assert copy(7, one.key, f"{prefix}other", "0" * 32, ABSENT) is None
        assert copy(7, f"{prefix}nothing", f"{prefix}other", one.version, None) is None
        assert not delete(two.key, "0" * 32)
        assert delete(two.key, two.version)
        assert delete(one.key, None)
        assert [info.key for info in listing(backend, prefix)[0] if info.key != prefix] == []

    def test_what_may_have_been_done_is_known_again(self, backend, prefix):
        key, metadata = f"{prefix}a", {"fsdriver-ino": "7"}
        one = backend.put_now(key, b"content", metadata, ABSENT)
        again = run(backend.put(key, b"content", metadata=metadata, if_version=ABSENT, doubtful=True))
        assert again.version == one.version
        with pytest.raises(Stale):
            run(backend.put(key, b"content", metadata={"fsdriver-ino": "8"}, if_version=ABSENT, doubtful=True))
        two = backend.copy_now(7, key, f"{prefix}b", one.version, ABSENT)
        again = run(backend.copy(key, f"{prefix}b", source_version=one.version, if_version=ABSENT, doubtful=True))
        assert again.version == two.version


class TestS3fs(_OnS3):
    engine = "fsspec"

    def test_small_objects_are_read_without_the_event_loop(self, backend, prefix, monkeypatch):
        assert backend.reads_now
        info = run(backend.put(f"{prefix}ü", b"content" * 1000))
        monkeypatch.setattr(backend, "_send", None)
        assert bytes(backend.get_now(info.key, 7000, info.version)) == b"content" * 1000
        assert bytes(backend.get_now(info.key, 7000, info.version)) == b"content" * 1000
        assert backend.get_now(info.key, 7000, "0" * 32) is None
        assert backend.get_now(info.key, 6999, info.version) is None
        assert backend.get_now(f"{prefix}missing", 1, info.version) is None
        assert backend.get_now(f"{prefix}a//b", 1, info.version) is None


class TestLocal(BackendSuite, MarkerSuite, MetadataSuite):
    file_and_directory = False
    scheme = "file"

    @pytest.fixture
    def backend(self, tmp_path):
        root = tmp_path / "root"
        root.mkdir()
        backend, self.key_prefix = open_backend("test", BackendConfig(url=f"{self.scheme}://{root}"))
        yield backend
        run(backend.close())

    @pytest.fixture
    def prefix(self, backend):
        return f"{self.key_prefix}/"


@pytest.mark.feature("S4-20")
class TestDirect(TestLocal):
    scheme = "direct"


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
