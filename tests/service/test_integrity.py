"""Bytes that are damaged between this host and S3: found by checksums on the way there, and of small objects on the way back."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fsdriver.backends import open_backend
from fsdriver.backends.objectstore import ObjectStoreBackend
from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.errors import Corrupt
from fsdriver.runtime import run as run_on_loop
from tests.servers import FaultyProxy
from tests.service.backend_suite import run
from tests.service.routes import read
from tests.service.test_backends import s3_config as backend_config

pytestmark = pytest.mark.service

MIB = 1 << 20
PART = 5 * MIB
BODY = bytes(range(256)) * 40
KEYS = {"one request": "key", "the SDK": "odd//key"}


@pytest.fixture
def proxy(s3_server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def make(s3_server, s3_bucket, proxy) -> Iterator[Callable[..., ObjectStoreBackend]]:
    made = []

    async def at_once(_: float) -> None:
        return None

    def make(**changes: Any) -> ObjectStoreBackend:
        backend, _ = open_backend("test", backend_config(s3_server, s3_bucket, endpoint=proxy.endpoint, **changes))
        assert isinstance(backend, ObjectStoreBackend)
        backend.retry = dataclasses.replace(backend.retry, sleep=at_once)
        backend.put_limit = backend.part_size = PART
        made.append(backend)
        return backend

    yield make
    for backend in made:
        run(backend.close())


def sums(proxy: FaultyProxy) -> list[tuple[str | None, str | None]]:
    """Payload hash and checksum of every PUT with a body."""
    puts = [{name.lower(): value for name, value in one.headers.items()} for one in proxy.seen if one.method == "PUT"]
    return [(one.get("x-amz-content-sha256"), one.get("x-amz-checksum-sha256")) for one in puts]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_uploads_carry_the_checksum_of_their_bytes(make, proxy, key) -> None:
    run(make().put(key, BODY))
    assert sums(proxy) == [(hashlib.sha256(BODY).hexdigest(), base64.b64encode(hashlib.sha256(BODY).digest()).decode())]


def test_so_do_parts(make, proxy) -> None:
    data = bytes(PART + 1000)
    run(make().put("key", data))
    expected = {base64.b64encode(hashlib.sha256(part).digest()).decode() for part in (data[:PART], data[PART:])}
    assert {checksum for _, checksum in sums(proxy)} == expected
    assert bytes(run(make().get("key"))) == data


def test_a_service_that_refuses_checksums_gets_none(make, proxy) -> None:
    backend = make(checksums=False)
    for key in KEYS.values():
        run(backend.put(key, BODY))
    run(backend.put("large", bytes(PART + 1)))
    assert {checksum for _, checksum in sums(proxy)} == {None}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_an_upload_that_is_damaged_on_its_way_is_sent_again(make, proxy, key, record_property) -> None:
    backend = make()
    proxy.fail(2, method="PUT", spoil=True)
    run(backend.put(key, BODY))
    assert bytes(run(backend.get(key))) == BODY
    assert proxy.count("PUT") == 3
    record_property("reliability:integrity:damaged uploads refused", 2)


def test_so_is_a_part(make, proxy) -> None:
    backend, data = make(), bytes(PART + 1000)
    proxy.fail(1, method="PUT", match="partNumber=2", spoil=True)
    run(backend.put("key", data))
    assert bytes(run(backend.get("key"))) == data
    assert proxy.count("PUT") == 3


def test_an_upload_that_is_always_damaged_fails(make, proxy) -> None:
    backend = make()
    assert backend.put_now("key", BODY, {}, None) is not None
    proxy.fail(100, method="PUT", spoil=True)
    assert backend.put_now("key", b"other", {}, None) is None
    with pytest.raises(Corrupt, match="damaged on their way"):
        run(backend.put("key", b"other"))
    assert bytes(run(backend.get("key"))) == BODY


def whole(backend: ObjectStoreBackend, version: str) -> bytes:
    return bytes(run(backend.get("key", 0, len(BODY), version)))


def with_attributes(backend: ObjectStoreBackend, version: str) -> bytes:
    return bytes(run(backend.fetch("key", MIB))[1])


@pytest.mark.parametrize("fetch", [whole, with_attributes])
@pytest.mark.parametrize("told", [True, False], ids=["later", "at first"])
def test_an_answer_that_is_damaged_is_asked_for_again(make, proxy, fetch, told, record_property) -> None:
    backend = make()
    version = run(backend.put("key", BODY)).version
    if told:
        assert fetch(backend, version) == BODY
    proxy.fail(1, method="GET", answer="corrupt")
    assert fetch(backend, version) == BODY
    assert backend.counters.corrupt_answers == 1
    record_property("reliability:integrity:damaged answers found", 1)


@pytest.mark.parametrize("fetch", [whole, with_attributes])
def test_an_object_that_is_always_damaged_is_an_error(make, proxy, fetch) -> None:
    backend = make()
    version = run(backend.put("key", BODY)).version
    assert fetch(backend, version) == BODY
    proxy.fail(100, method="GET", answer="corrupt")
    assert backend.get_now("key", len(BODY), version) is None
    with pytest.raises(Corrupt, match="checksum"):
        fetch(backend, version)


def test_where_etags_are_no_checksums_nothing_is_compared(make, proxy) -> None:
    """As with keys of KMS: the object is always the same, and never has that MD5."""
    backend = make()
    run(backend.put("key", BODY))
    backend._integrity.agrees = lambda etag, data, most=0: backend._integrity.useless  # an ETag that is another sum
    assert bytes(run(backend.fetch("key", MIB))[1]) == BODY
    assert backend._integrity.useless
    assert backend.counters.corrupt_answers == 0


def test_a_damaged_answer_is_neither_read_nor_cached(s3_config, proxy, s3_server, s3_bucket) -> None:
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/f", Body=BODY)
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/g", Body=BODY)
    s3_config["backend"]["hot"] |= {"endpoint": proxy.endpoint, "retries": 0}
    engine = open_engine(Config.model_validate(s3_config))
    route = engine.routes[0]
    assert read(route, "g") == BODY
    proxy.fail(1000, method="GET", match="/f", answer="corrupt")
    entry = run_on_loop(route.stat("f"))
    with pytest.raises(OSError, match="checksum"):
        read(route, "f")
    proxy.heal()
    assert not engine.cache.contains(route.content_key("f", entry))
    assert read(route, "f") == BODY


def test_through_s3fs(make, proxy, s3_server, s3_bucket) -> None:
    """The engine of forked children does the same."""
    backend, _ = open_backend("test", backend_config(s3_server, s3_bucket, endpoint=proxy.endpoint, engine="fsspec"))
    backend.put_limit = backend.part_size = PART
    proxy.fail(1, method="PUT", spoil=True)
    version = run(backend.put("key", BODY)).version
    data = bytes(PART + 1000)
    run(backend.put("large", data))
    sent = {checksum for _, checksum in sums(proxy)}
    assert sent == {base64.b64encode(hashlib.sha256(one).digest()).decode() for one in (BODY, data[:PART], data[PART:])}
    assert bytes(run(backend.get("large"))) == data
    assert bytes(run(backend.get("key", 0, len(BODY), version))) == BODY
    proxy.fail(1, method="GET", answer="corrupt")
    assert bytes(run(backend.get("key", 0, len(BODY), version))) == BODY
    assert backend.counters.corrupt_answers == 1
    run(backend.close())
