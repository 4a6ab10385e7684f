"""Attribute objects and user metadata: what is written can be read, what is foreign does no harm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.attributes import AttributeObject, apply_metadata, apply_record, to_metadata, to_record
from fsdriver.entry import Entry, Kind
from fsdriver.errors import Corrupt

numbers = st.integers(0, 2**63 - 1)
text = st.binary(max_size=60).map(lambda raw: raw.decode(errors="surrogateescape"))
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
    rdev=st.integers(0, 2**32),
    links=st.lists(text, max_size=3).map(tuple),
    xattrs=st.dictionaries(text, st.binary(max_size=30), max_size=3),
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
    st.dictionaries(st.sampled_from(["fsdriver-mode", "fsdriver-uid", "fsdriver-mtime", "fsdriver-kind"]), st.text())
)
def test_foreign_metadata_never_fails(metadata: dict[str, str]) -> None:
    apply_metadata(Entry(Kind.FILE), metadata)


@pytest.mark.parametrize(
    "record",
    [{"mode": "abc"}, {"kind": "dragon"}, {"xattrs": {"user.a": "%"}}, {"xattrs": 3}, {"links": 7}, {"ino": None}],
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
    [b"", b"[]", b"{}", b'{"format": "else"}', b'{"format": "fsdriver-attributes", "version": 2, "entries": {}}'],
)
def test_what_is_no_attribute_object_of_this_version_is_refused(body: bytes) -> None:
    with pytest.raises(Corrupt, match="not a usable attribute object"):
        AttributeObject.parse(body, "v", "some/key")
