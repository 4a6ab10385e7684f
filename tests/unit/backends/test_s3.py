"""S3 without a server: error texts, settings, listings, keys, parts."""

from __future__ import annotations

import hashlib
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.backends import open_backend
from fsdriver.backends.multipart import MOST_PARTS, Part, part_size_for, tag_of_parts
from fsdriver.backends.s3_errors import Failure, failure_of, failure_of_answer, to_error
from fsdriver.backends.s3_page import parse
from fsdriver.backends.s3_sdk import is_plain
from fsdriver.backends.s3_settings import S3Settings
from fsdriver.config.models import BackendConfig
from fsdriver.errors import (
    AccessDenied,
    BackendError,
    ConfigError,
    ContainerMissing,
    NameTooLong,
    NoSpace,
    NotFound,
    Stale,
    Throttled,
    TimedOut,
    Unreachable,
)


class GenericError(Exception):
    """Named as obstore's."""


class UnauthenticatedError(Exception):
    """Named as obstore's."""


def answer(status, code="", message="words"):
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    return GenericError(
        f"Generic S3 error: Server returned non-2xx status code: {status} Some Words: {body}\n\nDebug source:"
    )


@pytest.mark.parametrize(
    ("error", "expected", "temporary"),
    [
        (answer(404, "NoSuchKey"), NotFound, False),
        (answer(404), NotFound, False),
        (answer(404, "NoSuchBucket"), ContainerMissing, False),
        (answer(403, "SignatureDoesNotMatch"), AccessDenied, False),
        (answer(403), AccessDenied, False),
        (answer(412, "PreconditionFailed"), Stale, False),
        (answer(409, "ConditionalRequestConflict"), BackendError, True),
        (answer(503, "SlowDown"), Throttled, True),
        (answer(429), Throttled, True),
        (answer(500, "InternalError"), BackendError, True),
        (answer(502), BackendError, True),
        (answer(400, "RequestTimeout"), BackendError, True),
        (answer(400, "InvalidRequest"), BackendError, False),
        (answer(400, "KeyTooLongError"), NameTooLong, False),
        (answer(403, "QuotaExceeded"), NoSpace, False),
        (answer(301, "PermanentRedirect"), BackendError, False),
        (
            GenericError("Received redirect without LOCATION, this ... incorrectly configured region"),
            BackendError,
            False,
        ),
        (GenericError("HTTP error: error sending request\n kind: Connect,\n"), Unreachable, True),
        (GenericError("HTTP error: error sending request\n kind: Timeout,\n"), TimedOut, True),
        (GenericError("HTTP error: request or response body error\n kind: Interrupted,\n"), Unreachable, True),
        (
            GenericError("DeleteObjects request failed for key key: Access Denied. (code: AccessDenied)"),
            AccessDenied,
            False,
        ),
        (UnauthenticatedError("no credentials: set access_key_id"), AccessDenied, False),
    ],
)
def test_failures_of_obstore(error, expected, temporary):
    made = to_error(failure_of(error), "some/key", "bucket", "http://here")
    assert type(made) is expected
    assert "some/key" in str(made)
    assert getattr(made, "temporary", False) is temporary


def test_without_a_key_a_404_is_the_bucket():
    assert isinstance(to_error(Failure(404, "", ""), "", "bucket", "here"), ContainerMissing)


def test_retry_after_is_kept():
    made = to_error(failure_of_answer(503, b"", {"Retry-After": "12"}), "k", "b", "here")
    assert made.retry_after == 12.0
    assert to_error(failure_of_answer(503, b"", {"Retry-After": "Wed, 21 Oct"}), "k", "b", "here").retry_after is None


@pytest.mark.parametrize("key", ["a", "a/b", "é", "sp ace", "a%2Fb", "...", ".hidden", "a/..b", "back\\slash"])
def test_plain_keys(key):
    assert is_plain(key)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/./b", "..", "../a", "a\nb", "a\x7f", "\t"])
def test_keys_that_need_the_sdk(key):
    assert not is_plain(key)


def test_a_page_of_a_listing():
    page, token = parse(
        b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
        b"<Prefix>p</Prefix><Contents><Key>a%0Ab+%2B</Key><LastModified>2024-02-03T04:05:06.789Z</LastModified>"
        b"<ETag>&quot;abc&quot;</ETag><Size>7</Size><Owner><ID>Key</ID></Owner></Contents>"
        b"<CommonPrefixes><Prefix>d%C3%A9/</Prefix></CommonPrefixes>"
        b"<NextContinuationToken>t1</NextContinuationToken><EncodingType>url</EncodingType></ListBucketResult>"
    )
    (one,) = page.objects
    assert (one.key, one.size, one.version, one.mtime_ns) == ("a\nb +", 7, "abc", 1706933106_789_000_000)
    assert list(page.prefixes) == ["dé/"]
    assert token == "t1"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html></html>", b"<ListBucketResult><Contents>", b"<ListBucketResult><Contents/></ListBucketResult>"],
)
def test_a_broken_listing_is_tried_again(body):
    with pytest.raises(BackendError) as caught:
        parse(body)
    assert caught.value.temporary


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1), st.integers(0, 5 << 40)
        ),
        max_size=5,
    ),
    st.booleans(),
    st.booleans(),
)
def test_a_page_is_read_alike_by_both_parsers(entries, encoded, commented):
    def text(key):
        return quote_plus(key, safe="/") if encoded else escape(key)

    objects = "".join(
        f"<Contents><Key>{text(key)}</Key><ETag>&#34;{number:x}&#34;</ETag><Size>{size}</Size>"
        f"<LastModified>2024-02-03T04:05:0{number}Z</LastModified></Contents>"
        for number, (key, size) in enumerate(entries)
    )
    body = (
        f"<ListBucketResult>{'<EncodingType>url</EncodingType>' if encoded else ''}{objects}"
        f"<CommonPrefixes><Prefix>{text('a&b/')}</Prefix></CommonPrefixes>{'<!-- Key -->' if commented else ''}"
        "</ListBucketResult>"
    )
    page, token = parse(body.encode())
    assert [(info.key, info.size, info.version) for info in page.objects] == [
        (key, size, f"{number:x}") for number, (key, size) in enumerate(entries)
    ]
    assert (list(page.prefixes), token) == (["a&b/"], None)


@given(st.integers(1, 5 << 40), st.sampled_from([5 << 20, 16 << 20]))
def test_parts_fit_into_one_upload(size, preferred):
    step = part_size_for(size, preferred)
    assert step >= preferred
    assert -(-size // step) <= MOST_PARTS


def test_the_tag_of_parts_is_known_before_completion():
    digest = hashlib.md5(bytes.fromhex("aa" * 16 + "bb" * 16)).hexdigest()
    assert tag_of_parts([Part(1, "aa" * 16), Part(2, "bb" * 16)]) == f"{digest}-2"
    assert tag_of_parts([Part(1, "not-hex")]) is None


def settings(url="s3://bucket/x", environ=None, **changes):
    return S3Settings.from_config("bucket", BackendConfig(url=url, **changes), environ or {})


@pytest.mark.feature("S1-04")
def test_addresses():
    amazon = settings()
    assert (amazon.endpoint, amazon.path_style, amazon.region, amazon.location) == (
        None,
        False,
        "us-east-1",
        "amazonaws.com",
    )
    own = settings(endpoint="http://host:9000/")
    assert (own.endpoint, own.path_style, own.address) == ("http://host:9000", True, "http://host:9000")
    virtual = settings(endpoint="https://host", path_style=False)
    assert virtual.address == "https://bucket.host"
    from_environment = settings(environ={"AWS_ENDPOINT_URL": "http://e", "AWS_REGION": "eu-west-1"})
    assert (from_environment.endpoint, from_environment.path_style, from_environment.region) == (
        "http://e",
        True,
        "eu-west-1",
    )
    assert (
        settings(environ={"AWS_ENDPOINT_URL": "http://e", "AWS_ENDPOINT_URL_S3": "http://s3"}).endpoint == "http://s3"
    )


@pytest.mark.feature("S1-02")
def test_configured_keys_win_and_do_not_mix_with_the_environment():
    environ = {
        "AWS_ACCESS_KEY_ID": "env",
        "AWS_SECRET_ACCESS_KEY": "envsecret",
        "AWS_SESSION_TOKEN": "envtoken",
        "S": "late",
    }
    keys = settings(environ=environ, access_key_id="own", secret_access_key={"env": "S"}).credentials.fetch()
    assert (keys["access_key_id"], keys["secret_access_key"], keys["token"]) == ("own", "late", None)
    keys = settings(environ=environ).credentials.fetch()
    assert (keys["access_key_id"], keys["token"]) == ("env", "envtoken")
    assert "envsecret" not in repr(settings(environ=environ))


@pytest.mark.feature("S1-03")
def test_opening_sends_nothing_and_needs_a_bucket():
    backend, prefix = open_backend("x", BackendConfig(url="s3://bucket/some/prefix/", endpoint="http://127.0.0.1:1"))
    assert (backend.container, prefix) == ("bucket", "some/prefix")
    with pytest.raises(ConfigError, match="bucket"):
        open_backend("x", BackendConfig(url="s3://"))


@pytest.mark.parametrize(("url", "near"), [("s4://b", "s3"), ("memry://x", "memory"), ("fil:///x", "file")])
def test_an_unknown_scheme_names_the_nearest(url, near):
    with pytest.raises(ConfigError, match=near):
        open_backend("x", BackendConfig(url=url))


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(ConfigError, match="paramiko"):
        open_backend("x", BackendConfig(url="sftp://host/x"))
