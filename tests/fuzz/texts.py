"""Texts and messages: names, URLs, configuration, attribute objects, answers of S3, questions of other users."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fsdriver import names
from fsdriver.attributes import AttributeObject, apply_record
from fsdriver.backends import open_backend
from fsdriver.backends.s3_errors import failure_of_answer, to_error
from fsdriver.backends.s3_page import parse
from fsdriver.cache import passing
from fsdriver.config import from_url, load
from fsdriver.entry import Entry, Kind
from fsdriver.errors import BackendError, ConfigError, Corrupt, FsdriverError, InvalidName
from fsdriver.fuse_mount.protocol import ATTR
from tests.fuzz.case import Case, plain

TEXT = st.text(max_size=60)
RAW = st.binary(max_size=80).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
ODD = st.sampled_from(
    ["..", ".", "", "/", "\0", "%", "%2F", "%00", "%250A", "%5C", "\\", ".fsdriver", "%file", "é", "\n"]
)


def mixed(*more: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts put together from pieces that mean something and from others."""
    return st.lists(st.one_of(ODD, RAW, *more), max_size=8).map("".join)


# -- names and keys ----------------------------------------------------------------------------------------------------


def check_key(key: str) -> None:
    """A key of a store: its name, if it has one, is below the root and leads back to it."""
    name = names.to_name(key)
    if name is None:
        return
    segments = name.split("/")
    assert not {"", ".", ".."} & set(segments)
    assert "\0" not in name
    try:
        back = names.to_key(name)
    except InvalidName:
        return  # longer than any key
    assert back == key or back.startswith(names.FOLDS)


def check_name(name: str) -> None:
    """A path from a program: its key is below the prefix of the route and leads back to it."""
    try:
        key = names.to_key(name, "root/")
    except InvalidName:
        return
    assert key.startswith("root/")
    inside = key.removeprefix("root/")
    assert not {".", ".."} & set(inside.split("/"))
    if name and not inside.startswith(names.FOLDS):
        assert names.to_name(inside) == names._canonical(name)


# -- URLs and configuration --------------------------------------------------------------------------------------------

SCHEMES = st.sampled_from(["s3://", "file://", "s3a://", "local://", "tier::", "http://u:p@h", "S3://", "file:"])


def check_url(url: str) -> None:
    said = ""
    try:
        config = from_url(url)
        scheme = config.backend["default"].url.partition(":")[0].lower()
        if scheme in {"s3", "s3a", "file", "local"}:
            open_backend("default", config.backend["default"])
    except ConfigError as error:
        said = str(error)
    assert "p@h" not in said


TOML = st.sampled_from(
    ["[cache]\n", "[backend.a]\n", "[[route]]\n", "[storage.s3]\n", "url = ", "size = ", "path = ", "tiers = ", '"s3://b"\n',
     '["a"]\n', "{ env = ", '"X" }\n', "[" * 3000, "a." * 3000, "= 1\n", "nan\n", "1979-05-27\n", "9" * 5000, "\n", '"""', "'"]
)  # fmt: skip


def toml(place: Path) -> Case:
    file = place / "config.toml"

    def check(text: str) -> None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        with contextlib.suppress(ConfigError):
            load(file, {})

    return Case(mixed(TOML), check)


# -- what a bucket holds -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["mode", "uid", "gid", "ino", "rdev", "atime", "mtime", "ctime", "kind", "target", "links", "xattrs", "etag"]
)
RECORDS = st.dictionaries(
    FIELDS, JSON | st.sampled_from(["symlink", "block", "directory", ["../x"], {"user.a": "AA=="}])
)
DOCUMENT = st.fixed_dictionaries(
    {"format": st.just("fsdriver-attributes") | TEXT, "version": st.just(1) | JSON},
    optional={"self": RECORDS | JSON, "entries": st.dictionaries(TEXT, RECORDS | JSON) | JSON, "writers": JSON},
)


def check_attributes(body: bytes) -> None:
    try:
        found = AttributeObject.parse(body, "v", "key")
    except Corrupt:
        return
    for record in (found.own, *found.entries.values()):
        entry = apply_record(Entry(Kind.FILE), record)
        ATTR.pack(
            entry.ino,
            entry.size,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            entry.st_mode,
            entry.nlink,
            entry.uid,
            entry.gid,
            entry.rdev,
            0,
            0,
        )
        assert not any({"", ".", ".."} & set(link.split("/")) for link in entry.links)
    AttributeObject.parse(found.dump(), "v", "key")


XML = st.sampled_from(
    ["<ListBucketResult>", "</ListBucketResult>", "<Contents>", "</Contents>", "<Key>p/a", "</Key>", "<Size>1</Size>",
     "<Size>-1</Size>", "<Size>" + "9" * 5000 + "</Size>", "<LastModified>2026-01-01T00:00:00Z</LastModified>",
     "<ETag>&quot;e&quot;</ETag>", "<ETag>e&#13;&#10;X: y</ETag>", "<CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes>",
     "<EncodingType>url</EncodingType>", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "&b;", "<NextContinuationToken>t", "<!--", "-->"]
)  # fmt: skip


def check_page(text: str) -> None:
    try:
        page, token = parse(text.encode("utf-8", "surrogateescape"), "p/", "t")
    except BackendError:
        return
    assert token != "t"
    assert all(info.key.startswith("p/") and 0 <= info.size < 1 << 63 for info in page.objects)
    assert all(not info.version or (info.version.isascii() and info.version.isprintable()) for info in page.objects)


def check_failure(answer: tuple[int, bytes, str | None]) -> None:
    status, body, after = answer
    failure = failure_of_answer(status, body, {} if after is None else {"Retry-After": after})
    assert isinstance(to_error(failure, "key", "bucket", "http://service"), FsdriverError)


# -- questions of other users ------------------------------------------------------------------------------------------

QUESTIONS = st.lists(st.binary(max_size=30) | st.just(b"fsdriver read 1") | st.just(b"12"), max_size=7).map(b"\0".join)


def check_question(message: bytes) -> None:
    try:
        key = passing.parse(message)
    except ValueError:
        return
    assert passing.parse(passing.question(key)) == key
    assert not {"", ".", ".."} & set(key.place.split("/"))
    assert set(key.place) <= set("0123456789abcdef/")


def _encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


CASES = {
    "keys to names": plain(mixed(), check_key),
    "names to keys": plain(mixed(), check_name),
    "URLs": plain(st.builds(str.__add__, SCHEMES | st.just(""), mixed()), check_url),
    "configuration": toml,
    "attribute objects": plain(st.binary(max_size=200) | DOCUMENT.map(_encoded) | JSON.map(_encoded), check_attributes),
    "listings of S3": plain(mixed(XML), check_page),
    "failures of S3": plain(st.tuples(st.integers(100, 999), st.binary(max_size=200), st.none() | TEXT), check_failure),
    "questions for descriptors": plain(QUESTIONS | st.binary(max_size=20_000), check_question),
}
