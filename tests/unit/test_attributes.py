"""Attribute objects and user metadata: what is written can be read, what is foreign does no harm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver import attributes
from fsdriver.attributes import AttributeObject, apply_metadata, apply_record, to_metadata, to_record
from fsdriver.entry import Entry, Kind
from fsdriver.errors import Corrupt
from fsdriver.fuse_mount.protocol import ATTR

numbers = st.integers(0, 2**63 - 1)
text = st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape"))
segments = (
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.decode(errors="surrogateescape"))
    .filter(lambda name: name not in {".", "..", ".fsdriver"} and not {"/", "\0"} & set(name))
)
paths = st.lists(segments, min_size=1, max_size=3).map("/".join)
entries = st.builds(
    Entry,
    kind=st.sampled_from([kind for kind in Kind if kind is not Kind.SYMLINK]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    atime_ns=numbers,
    mtime_ns=numbers,
    ctime_ns=numbers,
    ino=numbers,
    rdev=st.integers(0, 2**32 - 1),
    links=st.lists(paths, max_size=3).map(tuple),
    xattrs=st.dictionaries(segments, st.binary(max_size=30), max_size=3),
)


@given(entries, st.text(min_size=1, max_size=40))
def test_a_record_restores_every_attribute(entry: Entry, version: str) -> None:
    entry = replace(entry, version=version)
    document = AttributeObject(entries={"name": to_record(entry)})
    read = AttributeObject.parse(document.dump(), "etag", "key")
    assert apply_record(Entry(Kind.FILE, version=version), read.entries["name"]) == entry


@given(text)
def test_a_symlink_keeps_target_and_length(target: str) -> None:
    entry = Entry(Kind.SYMLINK, target=target, size=len(target.encode(errors="surrogateescape")))
    assert apply_record(Entry(Kind.FILE), to_record(entry)) == entry
    assert apply_metadata(Entry(Kind.FILE), to_metadata(entry)).target == target


@given(entries)
def test_metadata_is_printable_ascii_and_restores_mode_owner_and_mtime(entry: Entry) -> None:
    metadata = to_metadata(entry)
    assert all(value.isascii() and value.isprintable() for value in metadata.values())
    read = apply_metadata(Entry(Kind.FILE), metadata)
    assert (read.kind, read.mode, read.uid, read.gid, read.mtime_ns) == (
        entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns,
    )  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from([f"fsdriver-{name}" for name in ("mode", "uid", "ino", "rdev", "mtime", "kind", "target")]),
        st.text() | st.integers(0, 2**80).map(str) | st.sampled_from(["symlink", "block", "%00", "%FF%ED%A0%80"]),
    )
)
def test_foreign_metadata_never_fails(metadata: dict[str, str]) -> None:
    assert_the_kernel_takes(apply_metadata(Entry(Kind.FILE), metadata))


WILD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)  # fmt: skip
FIELDS = ["mode", "uid", "gid", "ino", "rdev", "atime", "mtime", "ctime", "kind", "target", "links", "xattrs", "etag"]


@given(st.dictionaries(st.sampled_from(FIELDS), WILD))
def test_any_record_gives_what_the_kernel_takes(record: dict[str, object]) -> None:
    assert_the_kernel_takes(apply_record(Entry(Kind.FILE), record))


def assert_the_kernel_takes(entry: Entry) -> None:
    seconds = [moment // 10**9 & (1 << 64) - 1 for moment in (entry.atime_ns, entry.mtime_ns, entry.ctime_ns)]
    ATTR.pack(
        entry.ino,
        entry.size,
        0,
        *seconds,
        0,
        0,
        0,
        entry.st_mode,
        entry.nlink,
        entry.uid,
        entry.gid,
        entry.rdev,
        4096,
        0,
    )
    assert "\0" not in entry.target


@pytest.mark.parametrize(
    "record",
    [
        {"mode": "abc"},
        {"kind": "dragon"},
        {"xattrs": {"user.a": "%"}},
        {"xattrs": 3},
        {"links": 7},
        {"ino": None},
        {"mode": -1},
        {"mode": 1e300},
        {"uid": -1},
        {"uid": 2**32 - 1},
        {"gid": 2**70},
        {"ino": -5},
        {"ino": 2**63},
        {"rdev": 2**32},
        {"mtime": 2**63},
        {"atime": float("inf")},
        {"links": "abc"},
        {"links": [["a"]]},
        {"links": ["../a"]},
        {"links": ["/etc/passwd"]},
        {"links": ["a//b"]},
        {"links": ["a\0b"]},
        {"links": [".fsdriver/meta/%2F"]},
        {"links": ["a"] * 70_000},
        {"kind": "symlink", "target": "a\0b"},
        {"kind": "symlink", "target": "x" * 5000},
        {"xattrs": {"": ""}},
        {"xattrs": {"user.\0": ""}},
        {"xattrs": {"user." + "x" * 300: ""}},
    ],
)
def test_a_malformed_record_is_left_out(record: dict[str, object]) -> None:
    assert apply_record(Entry(Kind.FILE), record) == Entry(Kind.FILE)


def test_merging_replaces_removes_and_keeps() -> None:
    stored = AttributeObject(own={"mode": 1}, entries={"a": {"mode": 1}, "b": {"mode": 2}}, version="v")
    merged = stored.merged({"a": None, "c": {"mode": 3}, "": {"mode": 4}})
    assert merged == AttributeObject(own={"mode": 4}, entries={"b": {"mode": 2}, "c": {"mode": 3}}, version="v")
    assert stored.entries.keys() == {"a", "b"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": "else"}',
        b'{"format": "fsdriver-attributes", "version": 2, "entries": {}}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 5000,
    ],
    ids=range(8),
)
def test_what_is_no_attribute_object_of_this_version_is_refused(body: bytes) -> None:
    with pytest.raises(Corrupt, match="not a usable attribute object"):
        AttributeObject.parse(body, "v", "some/key")


def test_malformed_records_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "_malformed", attributes._Complaints())
    for number in range(1000):
        apply_record(Entry(Kind.FILE), {"mode": f"no number {number}" * 1000})
    assert len(caplog.messages) == 4
    assert "(1000 so far" in caplog.messages[-1]
    assert max(len(message) for message in caplog.messages) < 400
