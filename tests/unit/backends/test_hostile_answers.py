"""Answers of a service that lies: they are errors of the driver, and lead nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.backends import base
from fsdriver.backends.base import Page
from fsdriver.backends.local import LocalBackend
from fsdriver.backends.retry import RetryPolicy
from fsdriver.backends.s3_errors import failure_of_answer, to_error
from fsdriver.backends.s3_page import parse
from fsdriver.errors import BackendError, FsdriverError

OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
)
GOOD = {"key": "p/a", "time": "2026-01-01T00:00:00Z", "etag": "&quot;e&quot;", "size": "1"}


def page(*objects: str, more: str = "", head: str = "") -> bytes:
    return f'<?xml version="1.0"?>{head}<ListBucketResult>{"".join(objects)}{more}</ListBucketResult>'.encode()


def one(**fields: str) -> str:
    return OBJECT.format(**{**GOOD, **fields})


def test_the_page_without_lies_is_read() -> None:
    found, token = parse(page(one(), more="<NextContinuationToken>t</NextContinuationToken>"), "p/", "s")
    assert ([info.key for info in found.objects], token) == (["p/a"], "t")


BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)
LIES = {
    "entities that expand": page(one(key="p/&j;"), head=f"{BOMB}]>"),
    "an entity that is a file": page(one(key="p/&x;"), head='<!DOCTYPE b [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    "a foreign document type": page(one(), head='<!DOCTYPE b SYSTEM "http://127.0.0.1:1/x.dtd">'),
    "a key outside of what was asked for": page(one(key="q/a")),
    "such a key, for the other parser": page(one(key="q/&#97;")),
    "a directory outside": page("<CommonPrefixes><Prefix>q/</Prefix></CommonPrefixes>"),
    "a directory that is none": page("<CommonPrefixes><Prefix>p/a</Prefix></CommonPrefixes>"),
    "a page that leads to itself": page(one(), more="<NextContinuationToken>same</NextContinuationToken>"),
    "a size of 2**63": page(one(size=str(2**63))),
    "a size of 10**30": page(one(size="1" + "0" * 30)),
    "a size of 10**5000": page(one(size="1" + "0" * 5000)),
    "a negative size": page(one(size="-1")),
    "a time that is none": page(one(time="yesterday")),
    "a header in an etag": page(one(etag="e&#13;&#10;X-Evil: 1")),
    "a raw line break in an etag": page(one(etag="e\r\nX-Evil: 1")),
    "an etag that is not ASCII": page(one(etag="é")),
    "elements without end": b"<ListBucketResult>" + b"<a>" * 100_000,
    "half a page": page(one())[:-30],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_listing_that_lies_is_refused(lie: str) -> None:
    with pytest.raises(BackendError):
        parse(LIES[lie], "p/", "same")


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
PIECES = st.one_of(
    TEXT,
    st.builds(one, key=TEXT, size=TEXT, etag=TEXT, time=TEXT),
    st.sampled_from(["<Contents>", "</Contents>", "<Key>p/", "</Key>", "<!--", "]]>", "<![CDATA[", "&#0;", "&amp;", "<?x?>"]),
    st.sampled_from(["<EncodingType>url</EncodingType>", "<NextContinuationToken>%00</NextContinuationToken>"]),
)  # fmt: skip


def check_page(body: bytes) -> None:
    try:
        found, token = parse(body, "p/", "t")
    except BackendError:
        return
    assert token is None or (token and token != "t")
    for info in found.objects:
        assert info.key.startswith("p/")
        assert 0 <= info.size < 2**63
        assert info.version.isascii()
        assert info.version.isprintable() or not info.version


@given(st.lists(PIECES, max_size=6))
def test_any_page_is_read_or_refused(pieces: list[str]) -> None:
    check_page(page(*pieces))


@given(st.binary(max_size=300))
def test_any_bytes_are_no_listing(body: bytes) -> None:
    check_page(body)


@given(
    st.integers(100, 999),
    st.binary(max_size=200) | TEXT.map(lambda text: f"<Code>{text}</Code><Message>{text}</Message>".encode()),
    st.none() | st.text(max_size=12) | st.sampled_from(["²", "9" * 400, "-1", "1e9"]),
)
def test_any_failure_becomes_an_error_of_the_driver(status: int, body: bytes, after: str | None) -> None:
    failure = failure_of_answer(status, body, {} if after is None else {"Retry-After": after})
    assert isinstance(to_error(failure, "key", "bucket", "http://service"), FsdriverError)


def test_a_listing_without_end_and_without_entries_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = LocalBackend(str(tmp_path), RetryPolicy())
    asked = iter(range(10 * base.EMPTY_PAGES))

    async def nothing(*_: Any) -> tuple[Page, int]:
        return Page([]), next(asked)

    async def walk() -> None:
        async for _ in backend.list(""):
            pytest.fail("there is no entry")

    monkeypatch.setattr(backend, "_list_page", nothing)
    with pytest.raises(BackendError, match="without an entry"):
        asyncio.run(walk())
    assert next(asked) == base.EMPTY_PAGES
