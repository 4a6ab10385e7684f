"""S3 when something is wrong: clear errors, exact retries, nothing lost and nothing claimed that is not so."""

from __future__ import annotations

import asyncio
import dataclasses
import socket

import pytest

from fsdriver.backends import ABSENT, RetryPolicy, open_backend
from fsdriver.errors import (
    AccessDenied,
    BackendError,
    ContainerMissing,
    NotFound,
    Stale,
    Throttled,
    TimedOut,
    Unreachable,
)
from fsdriver.testing.servers import free_ports
from tests.servers import FaultyProxy
from tests.service.backend_suite import files, listing, run
from tests.service.test_backends import s3_config

pytestmark = pytest.mark.service


class Waits:
    """A sleep that only remembers how long it was asked to."""

    def __init__(self):
        self.seconds = []

    async def __call__(self, seconds):
        self.seconds.append(seconds)


@pytest.fixture(params=["auto", "fsspec"])
def engine(request):
    return request.param


@pytest.fixture
def make(s3_server, s3_bucket, engine):
    made = []

    def make(**changes):
        bucket = changes.pop("bucket", s3_bucket)
        backend, _ = open_backend("test", s3_config(s3_server, bucket, engine=engine, **changes))
        backend.waits = Waits()
        backend.retry = dataclasses.replace(backend.retry, sleep=backend.waits, random=lambda: 1.0)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        run(backend.close())


@pytest.fixture
def proxy(s3_server):
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


def operations(backend):
    """One call of every kind."""
    yield backend.check()
    yield backend.head("key")
    yield backend.get("key")
    yield backend.put("key", b"x")
    yield backend.put("key/", b"")
    yield backend.delete("key")
    yield backend.delete_many(["key", "key2"])
    yield backend.copy("key", "key2")
    yield first_page(backend)


async def first_page(backend):
    return [page async for page in backend.list("")]


def test_a_missing_bucket_is_never_a_missing_key_nor_an_empty_tree(make):
    for operation in operations(make(bucket="no-such-bucket")):
        with pytest.raises(ContainerMissing) as caught:
            run(operation)
        assert "no-such-bucket" in str(caught.value)
        assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("wrong", [{"access_key_id": "nobody"}, {"secret_access_key": "wrong"}])
def test_wrong_credentials(make, wrong):
    backend = make(**wrong)
    for operation in operations(backend):
        with pytest.raises(AccessDenied) as caught:
            run(operation)
        assert "access_key_id" in str(caught.value)
    assert backend.counters.retries == 0


def test_read_only_credentials_read_but_do_not_write(make, s3_server):
    run(make().put("key", b"content"))
    reader = make(access_key_id=s3_server.reader_access_key, secret_access_key=s3_server.reader_secret_key)
    assert bytes(run(reader.get("key"))) == b"content"
    assert [one.key for one in listing(reader, "")[0]] == ["key"]
    for operation in (
        reader.put("key", b"x"),
        reader.delete("key"),
        reader.copy("key", "other"),
        reader.put("d/", b""),
    ):
        with pytest.raises(AccessDenied):
            run(operation)


@pytest.mark.feature("S1-13")
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_unreachable_endpoint_fails_clearly(make, host):
    backend = make(endpoint=f"http://{host}:{free_ports(1)[0]}", retries=2)
    for operation in operations(backend):
        with pytest.raises(Unreachable) as caught:
            run(operation)
        assert host in str(caught.value)
    assert backend.counters.retries > 0


@pytest.mark.feature("S1-04")
def test_a_silent_endpoint_fails_within_the_timeout(make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backend = make(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5)

        async def all_at_once():
            return await asyncio.wait_for(asyncio.gather(*operations(backend), return_exceptions=True), timeout=20)

        for error in run(all_at_once()):
            assert isinstance(error, TimedOut)
            assert "timeout" in str(error) or "no answer" in str(error)


@pytest.mark.feature("S1-14")
def test_three_failures_then_success_are_four_requests(make, proxy):
    run(make().put("key", b"content"))
    backend = make(endpoint=proxy.endpoint)
    proxy.fail(3, 500, method="GET", match="/key")
    assert bytes(run(backend.get("key"))) == b"content"
    assert proxy.count("GET", "/key") == 4
    assert backend.waits.seconds == [0.1, 0.2, 0.4]
    assert backend.counters.retries == 3
    assert backend.counters.requests["get"] == 4


@pytest.mark.feature("S1-14")
def test_what_cannot_change_is_not_tried_again(make, proxy):
    backend = make(endpoint=proxy.endpoint)
    with pytest.raises(NotFound):
        run(backend.get("none"))
    assert proxy.count("GET", "/none") == 1
    proxy.fail(1, 400, method="GET", match="/bad")
    with pytest.raises(BackendError):
        run(backend.get("bad"))
    assert proxy.count("GET", "/bad") == 1


def test_giving_up_tells_why(make, proxy):
    backend = make(endpoint=proxy.endpoint, retries=2)
    proxy.fail(9, 503, method="GET", match="/key", body=b"<Error><Code>SlowDown</Code><Message>calm</Message></Error>")
    with pytest.raises(Throttled) as caught:
        run(backend.get("key"))
    assert "SlowDown" in str(caught.value)
    assert proxy.count("GET", "/key") == 3
    assert backend.counters.errors == 1


def test_one_page_of_a_listing_is_tried_again(make, proxy):
    run(make().put("d/key", b""))
    backend = make(endpoint=proxy.endpoint)
    proxy.fail(1, 503, method="GET", match="list-type=2", headers={"Retry-After": "3"})
    assert files(backend, "d/") == ["key"]
    assert proxy.count("GET", "list-type=2") == 2
    assert backend.waits.seconds == [3.0]


def test_a_cut_answer_is_read_again(make, proxy):
    run(make().put("key", b"content"))
    backend = make(endpoint=proxy.endpoint)
    proxy.fail(1, 0, method="GET", match="/key")
    assert bytes(run(backend.get("key"))) == b"content"


@pytest.mark.parametrize("condition", [ABSENT, "present"])
def test_a_conditional_put_whose_answer_was_lost_is_a_success(make, proxy, condition):
    direct, backend = make(), make(endpoint=proxy.endpoint)
    if condition == "present":
        condition = run(direct.put("key", b"before")).version
    proxy.fail(1, 0, method="PUT", match="/key", carried_out=True)
    info = run(backend.put("key", b"ours", metadata={"who": "us"}, if_version=condition))
    assert proxy.count("PUT", "/key") == 2
    assert info.version == run(direct.head("key")).version
    assert bytes(run(direct.get("key"))) == b"ours"


def test_a_conditional_put_that_lost_stays_lost_after_a_failure(make, proxy):
    direct, backend = make(), make(endpoint=proxy.endpoint)
    run(direct.put("key", b"them"))
    proxy.fail(1, 503, method="PUT", match="/key")
    with pytest.raises(Stale):
        run(backend.put("key", b"ours", if_version=ABSENT))
    assert bytes(run(direct.get("key"))) == b"them"


def test_a_completion_whose_answer_was_lost_is_a_success(make, proxy, s3_server):
    direct, backend = make(), make(endpoint=proxy.endpoint)
    backend.put_limit = backend.part_size = 5 << 20
    proxy.fail(1, 0, method="POST", match="uploadId", carried_out=True)
    info = run(backend.put("large", bytes(11 << 20), if_version=ABSENT))
    assert info.version == run(direct.head("large")).version
    assert not s3_server.client().list_multipart_uploads(Bucket=backend.container).get("Uploads")


def test_a_delete_whose_answer_was_lost_is_a_success(make, proxy):
    direct, backend = make(), make(endpoint=proxy.endpoint)
    version = run(direct.put("key", b"x")).version
    proxy.fail(1, 0, method="DELETE", match="/key", carried_out=True)
    run(backend.delete("key", if_version=version))
    with pytest.raises(NotFound):
        run(direct.head("key"))


def test_a_failing_part_removes_the_whole_upload(make, proxy, s3_server):
    backend = make(endpoint=proxy.endpoint, retries=0)
    backend.put_limit = backend.part_size = 5 << 20
    proxy.fail(1, 500, method="PUT", match="partNumber=2")
    with pytest.raises(BackendError):
        run(backend.put("large", bytes(16 << 20)))
    assert proxy.count("DELETE", "uploadId") == 1
    assert not s3_server.client().list_multipart_uploads(Bucket=backend.container).get("Uploads")


@pytest.mark.feature("S1-04")
def test_no_more_connections_than_the_pool_allows(make, proxy):
    backend = make(endpoint=proxy.endpoint, pool_size=3)

    async def crowd():
        await asyncio.gather(*(backend.put(f"k/{number}", b"x") for number in range(30)))

    run(crowd())
    assert proxy.most_connections <= 3


def test_no_credentials_at_all_is_explained(s3_server, s3_bucket, engine, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    config = s3_config(s3_server, s3_bucket, engine=engine, access_key_id=None, secret_access_key=None)
    backend, _ = open_backend("test", config)
    for operation in (backend.get("key"), backend.check(), backend.put("d/", b"")):
        with pytest.raises(AccessDenied) as caught:
            run(operation)
        assert "access_key_id" in str(caught.value)
    run(backend.close())


@pytest.mark.feature("S1-02")
@pytest.mark.parametrize("source", ["environment", "profile"])
def test_the_standard_variables_and_profiles_are_honoured(s3_server, s3_bucket, engine, monkeypatch, tmp_path, source):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    if source == "profile":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        path = tmp_path / "credentials"
        path.write_text(
            f"[work]\naws_access_key_id={s3_server.access_key}\naws_secret_access_key={s3_server.secret_key}\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
        monkeypatch.setenv("AWS_PROFILE", "work")
    config = s3_config(s3_server, s3_bucket, engine=engine, endpoint=None, access_key_id=None, secret_access_key=None)
    backend, _ = open_backend("test", config)
    assert backend.location == s3_server.endpoint
    run(backend.put("plain", b"1"))
    run(backend.put("marker/", b""))
    assert [one.key for one in listing(backend, "", delimiter=False)[0]] == ["marker/", "plain"]
    run(backend.close())


def test_a_signed_url_reads_without_credentials(make):
    import urllib.request

    backend = make()
    run(backend.put("signed", b"content"))
    url = run(backend.sign("signed", 60))
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"


def test_one_foreign_key_does_not_break_a_listing(make, s3_server):
    backend = make()
    for key in ("ok", "new\nline", "sub/x"):
        s3_server.client().put_object(Bucket=backend.container, Key=key, Body=b"")
    assert [one.key for one in listing(backend, "")[0]] == ["new\nline", "ok"]


def test_a_retry_policy_is_per_operation_not_per_object(make, proxy):
    backend = make(endpoint=proxy.endpoint)
    assert isinstance(backend.retry, RetryPolicy)
    proxy.fail(2, 503, method="PUT", match="/a")
    run(backend.put("a", b"x"))
    run(backend.put("b", b"x"))
    assert (proxy.count("PUT", "/a"), proxy.count("PUT", "/b")) == (3, 1)
