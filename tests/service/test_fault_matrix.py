"""Every kind of request meets every kind of fault, on a real S3 behind a proxy: it succeeds after few retries, or fails in time.

``transient`` faults happen once, and are survived; ``lasting`` ones happen for ever, and are told as what they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import hashlib
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fsdriver.backends import ABSENT, Backend, open_backend
from fsdriver.errors import BackendError, FsdriverError
from tests.servers import FaultyProxy
from tests.service.backend_suite import run
from tests.service.test_backends import s3_config

pytestmark = pytest.mark.service

PART = 5 << 20
SMALL = bytes(range(256)) * 40
ETAG = hashlib.md5(SMALL, usedforsecurity=False).hexdigest()
LARGE = SMALL * 600
TIMEOUT = 3.0
GRACE = 10.0
"""Seconds beyond its deadline after which an operation counts as hung, on a machine that is busy."""


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>told so</Message></Error>".encode()


TRANSIENT: dict[str, dict[str, Any]] = {
    "500": {"status": 500, "body": error_body("InternalError")},
    "503 with Retry-After": {"status": 503, "headers": {"Retry-After": "0"}, "body": error_body("SlowDown")},
    "429": {"status": 429},
    "closed": {"status": 0},
    "reset": {"status": 0, "reset": True},
    "carried out, then closed": {"status": 0, "carried_out": True},
    "carried out, then reset": {"status": 0, "carried_out": True, "reset": True},
    "cut": {"answer": "cut"},
    "reset in the answer": {"answer": "reset"},
    "length too long": {"answer": "long"},
    "slow request": {"rate": 8 << 20},
}
ONLY_READS: dict[str, dict[str, Any]] = {
    "hang": {"hang": True},
    "stall in the answer": {"answer": "stall"},
}
"""A write that was given up may be carried out later: it is not sent again at once."""
LASTING: dict[str, tuple[dict[str, Any], set[int]]] = {
    "500": ({"status": 500}, {errno.EIO, errno.ETIMEDOUT}),
    "503": ({"status": 503, "headers": {"Retry-After": "3600"}}, {errno.EIO, errno.ETIMEDOUT}),
    "closed": ({"status": 0}, {errno.EIO, errno.ETIMEDOUT}),
    "hang": ({"hang": True}, {errno.ETIMEDOUT}),
    "401": ({"status": 401}, {errno.EACCES}),
    "expired token": ({"status": 400, "body": error_body("ExpiredToken")}, {errno.EACCES}),
    "invalid token": ({"status": 403, "body": error_body("InvalidToken")}, {errno.EACCES}),
    "clock skew": ({"status": 403, "body": error_body("RequestTimeTooSkewed")}, {errno.EACCES}),
}


def each(faults: Iterable[str], *always: str) -> list[Any]:
    """Parameters: the faults, of which all but some wait for the night."""
    return [name if name in always else pytest.param(name, marks=pytest.mark.nightly) for name in faults]


@dataclass(frozen=True)
class Kind:
    """One kind of request: how it is made, which request of it meets the fault, and what is true when it has succeeded."""

    call: Callable[[Backend], Coroutine[Any, Any, Any]]
    method: str
    match: str
    holds: Callable[[Any, dict[str, bytes]], bool]
    reads: bool = False


async def _names(backend: Backend) -> list[str]:
    return [info.key async for page in backend.list("in/") for info in page.objects]


def _large(backend: Backend) -> Coroutine[Any, Any, Any]:
    return backend.put("in/large", LARGE, if_version=ABSENT, metadata={"who": "us"})


KINDS = {
    "get": Kind(lambda b: b.get("in/old"), "GET", "/in/old", lambda got, _: bytes(got) == SMALL, reads=True),
    "ranged get": Kind(
        lambda b: b.get("in/old", 7, 5000), "GET", "/in/old", lambda got, _: bytes(got) == SMALL[7:5000], reads=True
    ),
    "fetch": Kind(lambda b: b.fetch("in/old", 1 << 20), "GET", "/in/old", lambda got, _: bytes(got[1]) == SMALL, reads=True),
    "head": Kind(lambda b: b.head("in/old"), "HEAD", "/in/old", lambda got, _: got.size == len(SMALL), reads=True),
    "list": Kind(_names, "GET", "list-type", lambda got, _: sorted(got) == ["in/old", "in/older"], reads=True),
    "put": Kind(
        lambda b: b.put("in/new", SMALL, if_version=ABSENT, metadata={"who": "us"}),
        "PUT", "/in/new", lambda _, there: there["in/new"] == SMALL,
    ),
    "multipart, begun": Kind(_large, "POST", "uploads", lambda _, there: there["in/large"] == LARGE),
    "multipart, a part": Kind(_large, "PUT", "partNumber=1", lambda _, there: there["in/large"] == LARGE),
    "multipart, completed": Kind(_large, "POST", "uploadId", lambda _, there: there["in/large"] == LARGE),
    "copy": Kind(
        lambda b: b.copy("in/old", "in/copy", if_version=ABSENT), "PUT", "/in/copy",
        lambda _, there: there["in/copy"] == SMALL,
    ),
    "delete": Kind(lambda b: b.delete("in/old", if_version=ETAG), "DELETE", "/in/old", lambda _, there: "in/old" not in there),
    "delete of many": Kind(
        lambda b: b.delete_many(["in/old", "in/older"]), "POST", "delete", lambda _, there: not there
    ),
}  # fmt: skip


class Scene:
    """A bucket with two objects, whose only way is through the proxy."""

    def __init__(self, server: Any, proxy: FaultyProxy, engine: str) -> None:
        self.proxy = proxy
        self._server = server
        self._engine = engine
        self.bucket = ""
        self.opened: list[Backend] = []

    def backend(self, **changes: Any) -> Backend:
        self.bucket = self._server.create_bucket()
        for key in ("in/old", "in/older"):
            self._server.client().put_object(Bucket=self.bucket, Key=key, Body=SMALL, Metadata={"who": "them"})
        config = s3_config(self._server, self.bucket, endpoint=self.proxy.endpoint, engine=self._engine, **changes)
        backend, _ = open_backend("test", config)
        backend.put_limit = backend.part_size = PART
        self.opened.append(backend)
        return backend

    def there(self) -> dict[str, bytes]:
        """What the bucket holds; nothing is unfinished."""
        client = self._server.client()
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return {one["Key"]: client.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read() for one in listed}

    def unfinished(self) -> int:
        return len(self._server.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", ()))

    def end(self) -> None:
        self.proxy.heal()
        for backend in self.opened:
            run(backend.close())


@pytest.fixture(params=["auto", pytest.param("fsspec", marks=pytest.mark.nightly)])
def scene(request: pytest.FixtureRequest, s3_server: Any) -> Iterator[Scene]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        made = Scene(s3_server, proxy, request.param)
        yield made
        made.end()


async def _in_time(call: Coroutine[Any, Any, Any], limit: float) -> Any:
    return await asyncio.wait_for(call, limit)


@pytest.mark.parametrize("fault", each(TRANSIENT, "503 with Retry-After", "carried out, then reset", "cut"))
def test_a_transient_fault_is_survived(
    scene: Scene, fault: str, record_property: Callable[[str, object], None]
) -> None:
    for name, kind in KINDS.items():
        backend = scene.backend()
        before = sum(scene.proxy.injected.values())
        scene.proxy.fail(1, method=kind.method, match=kind.match, **TRANSIENT[fault])
        result = run(_in_time(kind.call(backend), 30.0 + GRACE))
        assert kind.holds(result, scene.there()), name
        assert sum(scene.proxy.injected.values()) == before + 1, name
        assert backend.counters.errors == 0, name
        assert scene.unfinished() == 0, name
    record_property(f"reliability:faults:{fault}", sum(scene.proxy.injected.values()))


TURNED: dict[str, dict[str, Any]] = {
    "get": {"answer": "corrupt"},
    "fetch": {"answer": "corrupt"},
    "put": {"spoil": True},
    "multipart, a part": {"spoil": True},
}
"""Requests whose bodies have a checksum, and on which way. Ranges and listings have none: docs/security.md."""


@pytest.mark.parametrize("name", TURNED)
def test_a_bit_that_is_turned_on_the_way_is_noticed(
    scene: Scene, name: str, record_property: Callable[[str, object], None]
) -> None:
    kind, backend = KINDS[name], scene.backend()
    run(backend.fetch("in/older", 1 << 20))  # ETags are known to be checksums from now on
    scene.proxy.fail(1, method=kind.method, match=kind.match, **TURNED[name])
    if name == "get":  # compared where the version is demanded, as the cache does
        assert bytes(run(backend.get("in/old", 0, len(SMALL), ETAG))) == SMALL
    else:
        assert kind.holds(run(_in_time(kind.call(backend), 30.0 + GRACE)), scene.there())
    assert sum(scene.proxy.injected.values()) == 1
    assert scene.unfinished() == 0
    record_property("reliability:faults:a bit turned in a body", 1)


@pytest.mark.parametrize("name", ["list", "multipart, completed"])
def test_a_listing_with_a_turned_bit_does_no_harm(scene: Scene, name: str) -> None:
    """It may be believed, as there is no checksum, or asked for again: nothing else happens."""
    kind, backend = KINDS[name], scene.backend()
    scene.proxy.fail(1, method=kind.method, match=kind.match, answer="corrupt")
    with contextlib.suppress(BackendError):
        run(_in_time(kind.call(backend), 30.0 + GRACE))
    assert sum(scene.proxy.injected.values()) == 1
    assert scene.unfinished() == 0
    assert {"in/old": SMALL, "in/older": SMALL}.items() <= scene.there().items()


@pytest.mark.parametrize("fault", each(ONLY_READS, "hang"))
def test_a_read_that_gets_no_answer_is_asked_again(
    scene: Scene, fault: str, record_property: Callable[[str, object], None]
) -> None:
    kinds = {
        name: kind for name, kind in KINDS.items() if kind.reads and name != "fetch"
    }  # of several requests with s3fs
    backend = scene.backend(timeout=8.0)
    for kind in kinds.values():
        scene.proxy.fail(1, method=kind.method, match=kind.match, **ONLY_READS[fault])

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(_in_time(kind.call(backend), 8.0 + GRACE) for kind in kinds.values()))

    for (name, kind), result in zip(kinds.items(), run(all_at_once()), strict=True):
        assert kind.holds(result, {}), name
    assert sum(scene.proxy.injected.values()) == len(kinds)
    record_property(f"reliability:faults:{fault}", len(kinds))


@pytest.mark.parametrize("fault", each(LASTING, "503", "hang", "expired token"))
def test_a_lasting_fault_is_told_in_time(
    scene: Scene, fault: str, record_property: Callable[[str, object], None]
) -> None:
    options, codes = LASTING[fault]
    backend = scene.backend(timeout=TIMEOUT, retries=2)
    scene.proxy.fail(10**6, **options)

    async def all_at_once() -> list[Any]:
        calls = (_in_time(kind.call(backend), len(KINDS) * TIMEOUT + GRACE) for kind in KINDS.values())
        return await asyncio.gather(*calls, return_exceptions=True)

    for name, error in zip(KINDS, run(all_at_once()), strict=True):
        assert isinstance(error, BackendError), (name, error)
        assert error.errno in codes, (name, error)
    scene.proxy.heal()
    assert scene.there() == {"in/old": SMALL, "in/older": SMALL}
    record_property(f"reliability:faults:lasting {fault}", sum(scene.proxy.injected.values()))


def test_how_long_the_store_asks_to_wait_is_honoured(scene: Scene) -> None:
    """By every operation; obstore does not tell, so that another client asks while a store is asking for fewer requests."""
    for name, kind in KINDS.items():
        backend = scene.backend()
        waits: list[float] = []

        async def sleep(seconds: float, waits: list[float] = waits) -> None:
            waits.append(seconds)

        backend.retry = dataclasses.replace(backend.retry, sleep=sleep)
        options = {"headers": {"Retry-After": "7"}, "body": error_body("SlowDown")}
        scene.proxy.fail(2, 503, method=kind.method, match=kind.match, **options)
        assert kind.holds(run(kind.call(backend)), scene.there()), name
        assert 7.0 in waits, name


@pytest.mark.nightly
def test_many_faults_leave_nothing_behind(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Descriptors, threads and connections after hundreds of faults are no more than after some."""
    backend = scene.backend(timeout=TIMEOUT)
    run(backend.put("in/new", SMALL))
    faults = [options for name, options in TRANSIENT.items() if name != "slow request"]

    async def round_of() -> None:
        for options in faults:
            scene.proxy.fail(12, every=2, **{**options, "headers": {}})
            calls = [backend.get("in/old"), backend.head("in/old"), backend.put("in/new", SMALL), _names(backend)]
            for error in await asyncio.gather(
                *calls, *(backend.get("in/older") for _ in range(8)), return_exceptions=True
            ):
                assert error is None or not isinstance(error, Exception) or isinstance(error, FsdriverError), error
            scene.proxy.heal()

    def held() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")) - scene.proxy.open_connections, threading.active_count()

    run(round_of())
    before = held()
    for _ in range(2):
        run(round_of())
    deadline = time.monotonic() + 60
    while any(now > then + 8 for now, then in zip(held(), before, strict=True)):
        assert time.monotonic() < deadline, (held(), before)
        time.sleep(0.1)
    assert bytes(run(backend.get("in/new"))) == SMALL
    record_property("reliability:faults:mixed", sum(scene.proxy.injected.values()))
