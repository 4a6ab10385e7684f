"""Backends that compress and encrypt: the conformance suite over real stores, what is asked of them, and what other tools see."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import secrets

import pytest

from fsdriver.backends import ABSENT, open_backend
from fsdriver.backends.codecs.container import parse
from fsdriver.backends.codecs.envelope import Keys
from fsdriver.backends.coded import MARK, CodedBackend
from fsdriver.cli.options import refuse_secrets
from fsdriver.config.models import BackendConfig
from fsdriver.errors import AccessDenied, ConfigError, Corrupt, NotFound, Stale, Unsupported
from tests.service.backend_suite import (
    BackendSuite,
    BucketSuite,
    MarkerSuite,
    MetadataSuite,
    MultipartSuite,
    listing,
    run,
)
from tests.service.test_backends import s3_config

pytestmark = pytest.mark.service

KEY, NEW_KEY = "ab" * 32, "cd" * 32
ENCRYPTED = {"compression": "zstd", "encryption_key": KEY}


def text(size: int) -> bytes:
    words = [random.Random(number).randbytes(9) for number in range(60)]
    chosen = random.Random(1)
    return b"".join(chosen.choice(words) for _ in range(size // 9 + 1))[:size]


class TestEncryptedOnS3(BackendSuite, MarkerSuite, MetadataSuite, MultipartSuite, BucketSuite):
    flat_listings_in_key_order = False  # SeaweedFS sorts segment by segment

    @pytest.fixture
    def backend(self, s3_server, s3_bucket):
        backend, _ = open_backend("test", s3_config(s3_server, s3_bucket, **ENCRYPTED))
        self.client = s3_server.client()
        yield backend
        run(backend.close())

    @pytest.fixture(autouse=True)
    def small_parts(self, backend):
        backend.inner.put_limit = backend.inner.part_size = 5 << 20

    @pytest.fixture
    def prefix(self):
        return "in/side/"

    def uploads(self, backend):
        answer = self.client.list_multipart_uploads(Bucket=backend.inner.container)
        return [one["Key"] for one in answer.get("Uploads", [])]

    def test_cancelling_leaves_no_upload(self, backend, prefix):
        noise = os.urandom(40 << 20)

        async def cancel_after_the_first_part() -> None:
            task = asyncio.create_task(backend.put(f"{prefix}large", noise))
            while backend.counters.requests.get("upload_part", 0) < 1:  # noqa: ASYNC110 - nothing else to wait for
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        run(cancel_after_the_first_part())
        assert self.uploads(backend) == []
        with pytest.raises(NotFound):
            run(backend.head(f"{prefix}large"))


class TestGzipWithoutMetadata(BackendSuite, MarkerSuite):
    """In a store that keeps none, objects are known by their bytes."""

    file_and_directory = False

    @pytest.fixture
    def backend(self):
        config = BackendConfig(url=f"memory://{secrets.token_hex(4)}/x", compression="gzip")
        backend, self.key_prefix = open_backend("test", config)
        yield backend
        run(backend.close())

    @pytest.fixture
    def prefix(self, backend):
        return f"{self.key_prefix}/"

    def test_sizes_are_found_in_the_objects(self, backend, prefix):
        run(backend.put(f"{prefix}a", text(10_000)))
        fresh = CodedBackend(backend.inner, None, Keys(None))
        assert [one.size for one in listing(fresh, prefix)[0] if one.key != prefix] == [10_000]
        assert run(fresh.head(f"{prefix}a")).size == 10_000
        assert bytes(run(fresh.get(f"{prefix}a", 5000, 6000))) == text(10_000)[5000:6000]


class TestLz4OnFiles(BackendSuite, MarkerSuite, MetadataSuite):
    file_and_directory = False

    @pytest.fixture
    def backend(self, tmp_path):
        root = tmp_path / "root"
        root.mkdir()
        config = BackendConfig(url=f"file://{root}", compression="lz4", encryption_key=KEY)
        backend, self.key_prefix = open_backend("test", config)
        yield backend
        run(backend.close())

    @pytest.fixture
    def prefix(self, backend):
        return f"{self.key_prefix}/"


@pytest.fixture
def opened(s3_server, s3_bucket):
    """Backends on one bucket; what each asks is counted from zero."""
    made = []

    def make(**coding):
        backend, _ = open_backend("test", s3_config(s3_server, s3_bucket, **coding))
        made.append(backend)
        return backend

    yield make
    for backend in made:
        run(backend.close())


def asked(backend) -> dict:
    found = dict(backend.counters.requests)
    backend.counters.requests.clear()
    return found


@pytest.mark.parametrize(
    "coding", [ENCRYPTED, {"compression": "lz4"}, {"encryption_key": KEY}, {"compression": "gzip"}]
)
def test_a_small_read_of_a_large_object(opened, coding, tmp_path):
    data = text(6 << 20)
    (tmp_path / "large").write_bytes(data)
    written = run(opened(**coding).put("large", tmp_path / "large", metadata={"note": "x"}, if_version=ABSENT))
    reader = opened(**coding)
    info = run(reader.head("large"))
    assert (info.size, info.version, info.metadata) == (len(data), written.version, {"note": "x"})
    assert asked(reader) == {"head": 1}
    at = (3 << 20) + 77
    assert bytes(run(reader.get("large", at, at + 4096, info.version))) == data[at : at + 4096]
    index = 0 if coding == {"encryption_key": KEY} else 1
    assert asked(reader) == {"get": 2 + index}
    assert reader.counters.bytes_read < 1 << 20
    assert bytes(run(reader.get("large", 5, 4101, info.version))) == data[5:4101]
    assert asked(reader) == {"get": 1}
    assert bytes(run(reader.get("large"))) == data
    with pytest.raises(Stale):
        run(reader.get("large", 0, 10, "0" * 32))


def test_sizes_in_listings_are_asked_for_once(opened):
    writer = opened(compression="zstd")
    for number in range(30):
        run(writer.put(f"d/{number:02}", text(5000 + number)))
    asked(writer)
    assert [one.size for one in listing(writer, "d/")[0]] == [5000 + number for number in range(30)]
    assert asked(writer) == {"list": 1}
    run(opened().put("d/99", b"foreign" * 100))
    run(opened().put("d/aa", b"small and foreign"))
    other = opened(**ENCRYPTED)
    assert [one.size for one in listing(other, "d/")[0]] == [*range(5000, 5030), 700, 17]
    assert asked(other) == {"list": 1, "head": 31, "get": 1}
    assert len(listing(other, "d/")[0]) == 32
    assert asked(other) == {"list": 1}


def test_foreign_objects_and_those_that_only_look_coded(opened):
    raw, coded = opened(), opened(**ENCRYPTED)
    zipped = gzip.compress(text(10_000))
    run(raw.put("foreign.gz", zipped))
    assert bytes(run(coded.get("foreign.gz"))) == zipped
    run(coded.put("ours", text(10_000)))
    stored = bytes(run(raw.get("ours")))
    # Without its metadata, which other tools may drop, it is known by its bytes.
    run(raw.put("copied", stored))
    assert run(opened(**ENCRYPTED).head("copied")).size == 10_000
    assert bytes(run(opened(**ENCRYPTED).get("copied"))) == text(10_000)
    run(raw.put("pretends", stored[:40] + os.urandom(500)))
    with pytest.raises(Corrupt, match="its header is damaged"):
        run(coded.get("pretends"))
    assert [one.size for one in listing(opened(**ENCRYPTED), "pretends")[0]] == [540]
    # Stored coded bytes as a file: they come back as they are.
    run(coded.put("wrapped", stored))
    assert bytes(run(opened(**ENCRYPTED).get("wrapped"))) == stored
    run(raw.put("lies", b"x" * 500, metadata={MARK: "1,12345,0"}))
    with pytest.raises(Corrupt, match="its metadata say"):
        run(_headed(coded, "lies"))


async def _headed(backend, key):
    info = await backend.head(key)
    return await backend.get(key, 0, None, info.version)


def test_what_does_not_gain_lies_as_it_is(opened):
    noise = random.Random(5).randbytes(300_000)
    coded = opened(compression="zstd")
    run(coded.put("noise", noise, metadata={"note": "x"}))
    assert bytes(run(opened().get("noise"))) == noise
    info = run(opened(compression="zstd").head("noise"))
    assert (info.size, info.metadata) == (300_000, {"note": "x"})
    assert run(coded.has_digest("noise", info.version, "0" * 32)) is False


def test_nothing_of_the_bytes_is_on_the_store_and_keys_rotate(opened):
    data = b"the secret sentence of this test" * 10_000
    old = opened(**ENCRYPTED)
    run(old.put("secret", data))
    stored = bytes(run(opened().get("secret")))
    assert b"the secret" not in stored
    assert parse(stored).encrypted
    rotated = opened(encryption_key=NEW_KEY, decryption_keys=[KEY])
    assert bytes(run(rotated.get("secret"))) == data
    run(rotated.put("secret", data))
    for wrong in (opened(compression="zstd"), opened(encryption_key=KEY)):
        with pytest.raises(AccessDenied, match="decryption_keys"):
            run(wrong.get("secret"))
        assert run(wrong.head("secret")).size == len(data)
    assert bytes(run(opened(decryption_keys=[NEW_KEY]).get("secret"))) == data


def test_the_smallest_objects(opened):
    writer = opened(**ENCRYPTED)
    for size in (0, 1, 2, 20):
        run(writer.put(f"{size}", bytes(size)))
    for backend in (writer, opened(**ENCRYPTED)):
        assert {one.key: one.size for one in listing(backend, "")[0]} == {"0": 0, "1": 1, "2": 2, "20": 20}
        assert bytes(run(backend.get("1"))) == b"\0"


@pytest.mark.parametrize("coding", [ENCRYPTED, {"compression": "zstd"}])
def test_what_may_have_been_done_is_known_again(opened, coding, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(text(20_000))
    metadata = {"fsdriver-ino": "7"}
    one = run(opened(**coding).put("a", path, metadata=metadata, if_version=ABSENT))
    again = opened(**coding)
    assert run(again.put("a", path, metadata=metadata, if_version=ABSENT, doubtful=True)).version == one.version
    with pytest.raises(Stale):
        run(again.put("a", path, metadata={"fsdriver-ino": "8"}, if_version=ABSENT, doubtful=True))
    with pytest.raises(Stale):
        run(again.put("a", path.read_bytes()[:-1] + b"x", metadata=metadata, if_version=ABSENT, doubtful=True))
    info = run(again.head("a"))
    assert run(again.is_made_of(info, path)) is True
    path.write_bytes(b"other")
    assert run(again.is_made_of(info, path)) is False


@pytest.mark.parametrize("coding", [ENCRYPTED, {"compression": "zstd"}])
@pytest.mark.parametrize("engine", ["auto", "fsspec"])
@pytest.mark.parametrize("data", [text(20_000), random.Random(1).randbytes(20_000)], ids=["coded", "noise"])
def test_an_equal_object_of_another_writer_is_not_ours(opened, coding, engine, data):
    run(opened(engine=engine, **coding).put("a", data, if_version=ABSENT))
    with pytest.raises(Stale):
        run(opened(engine=engine, **coding).put("a", data, if_version=ABSENT))


@pytest.mark.parametrize("name", ["encryption_key", "decryption_keys", "cache.encryption_key"])
def test_keys_are_refused_on_a_command_line(name):
    with pytest.raises(ConfigError, match="shows this to every user") as raised:
        refuse_secrets({name: KEY})
    assert KEY not in str(raised.value)


def test_copies_keep_what_they_are(opened):
    data = text(50_000)
    backend = opened(**ENCRYPTED)
    one = run(backend.put("a", data, metadata={"note": "1"}))
    asked(backend)
    two = run(backend.copy("a", "b", source_version=one.version, size=one.size))
    assert (two.size, asked(backend).get("head", 0)) == (50_000, 0)
    three = run(opened(**ENCRYPTED).copy("b", "c", metadata={"note": "2"}))
    assert three.size == 50_000
    fresh = opened(**ENCRYPTED)
    assert run(fresh.head("c")).metadata == {"note": "2"}
    assert [bytes(run(fresh.get(key))) for key in "abc"] == [data] * 3
    info, found = run(opened(**ENCRYPTED).fetch("c", 50_000))
    assert (info.size, bytes(found)) == (50_000, data)
    with pytest.raises(Corrupt, match="50,000 bytes"):
        run(opened(**ENCRYPTED).fetch("c", 40_000))
    with pytest.raises(Unsupported):
        run(fresh.sign("a", 10))


def test_its_store_is_another_for_the_journal_and_the_cache(opened):
    names = {opened(**coding).identity for coding in ({}, {"compression": "lz4"}, ENCRYPTED)}
    assert len(names) == 3
    assert isinstance(opened(decryption_keys=[KEY]), CodedBackend)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"compression": "zip"}, "compression"),
        ({"compression_level": 3}, "nothing is compressed"),
        ({"compression": "gzip", "compression_level": 12}, "levels from 1 to 9"),
        ({"encryption_key": "abc"}, "32 bytes"),
        ({"url": "direct:///srv", "compression": "zstd"}, "direct://"),
        ({"url": "https://host/x", "encryption_key": KEY}, "only read"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        BackendConfig(**{"url": "s3://bucket", **settings})
