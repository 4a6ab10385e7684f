"""Names and keys: bijective over everything a file system or a bucket can hold."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsdriver import names
from fsdriver.errors import InvalidName, NameTooLong
from fsdriver.names import check_name, check_segments, escape_directory, shown_names, to_key, to_name

TRICKY = st.sampled_from(
    [
        b"%",
        b"25",
        b"0A",
        b"5C",
        b"C3",
        b"A9",
        b"2F",
        b"\\",
        b"\n",
        b"\xc3",
        b"\xa9",
        b"\xe2\x82",
        "é".encode(),
        b"a",
        b"%c3",
        b"%file",
    ]
)
NAME_BYTES = st.one_of(
    st.binary(min_size=1, max_size=60), st.lists(TRICKY, min_size=1, max_size=10).map(b"".join)
).filter(lambda raw: raw not in (b".", b"..") and b"/" not in raw and b"\0" not in raw)
NAMES = NAME_BYTES.map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("plain.txt", "plain.txt"),
        ("dir/é 💾", "dir/é 💾"),
        ("a\nb", "a%0Ab"),
        ("a\\b", "a%5Cb"),
        ("\x7f", "%7F"),
        ("\udcff", "%FF"),
        ("100%", "100%"),
        ("%41%2F", "%41%2F"),
        ("50%25", "50%25"),
        ("%0A", "%250A"),
        ("%250A", "%25250A"),
        ("%FF", "%25FF"),
        ("%0a", "%0a"),
        ("caf%C3%A9", "caf%C3%A9"),
        ("%C3\udca9", "%25C3%A9"),
        ("\udcc3%A9", "%C3%25A9"),
    ],
)
def test_known_pairs(name: str, key: str) -> None:
    assert to_key(name) == key
    assert to_name(key) == name


@settings(max_examples=500)
@given(NAMES)
@example("%25%0A")
@example("%C3%A9\udcff%FF")
def test_every_name_has_one_key(name: str) -> None:
    key = to_key(name)
    key.encode("utf-8")
    assert not any(ord(character) < 0x20 or character in "\x7f\\" for character in key)
    assert to_name(key) == name


@settings(max_examples=500)
@given(NAMES, NAMES)
def test_different_names_have_different_keys(left: str, right: str) -> None:
    assert (left == right) == (to_key(left) == to_key(right))


@settings(max_examples=500)
@given(
    st.one_of(
        st.text(max_size=40), st.lists(TRICKY, max_size=10).map(lambda raw: b"".join(raw).decode("utf-8", "replace"))
    )
)
def test_a_key_with_a_name_is_reached_by_it(key: str) -> None:
    name = to_name(key)
    if name is not None:
        assert to_key(name) == key


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "./a", "a/..", "a/./b", "..", "a\nb", "a\\b", "\x00", "%00", "x" * 256, "%25C3%25A9"],
)
def test_keys_without_a_name(key: str) -> None:
    assert to_name(key) is None


def test_root_and_prefix() -> None:
    assert to_key("") == ""
    assert to_key("a/b\n", "pre/fix/") == "pre/fix/a/b%0A"
    with pytest.raises(NameTooLong):
        to_key("a" * 200, "p" * 900)


@pytest.mark.parametrize("segment", ["", ".", "..", "a/b", "a\0b"])
def test_bad_names(segment: str) -> None:
    with pytest.raises(InvalidName):
        check_name(segment)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(InvalidName):
        to_key("\ud800")


def test_lengths_count_bytes() -> None:
    check_name("x" * 255)
    check_name("é" * 127)
    with pytest.raises(NameTooLong):
        check_name("é" * 128)
    assert len(to_key("\n" * 255)) == 765
    with pytest.raises(NameTooLong, match="1024"):
        to_key("\n" * 255 + "/" + "\n" * 255)


@pytest.mark.parametrize("path", ["a//b", "/a", "a/", "a/../b"])
def test_paths_are_clean(path: str) -> None:
    with pytest.raises(InvalidName):
        to_key(path)


def test_an_object_beside_a_directory_of_its_name() -> None:
    assert shown_names(["a", "b"], ["c"]) == {"a": "a", "b": "b"}
    assert shown_names(["a", "b"], ["a"]) == {"a%file": "a", "b": "b"}
    assert shown_names(["a", "a%file"], ["a"]) == {"a%file": "a", "a%file%file": "a%file"}
    assert shown_names(["a"], ["a", "a%file"]) == {"a%file%file": "a"}
    assert shown_names(["x" * 255], ["x" * 255]) == {}


LEVEL = st.sets(st.sampled_from(["a", "b", "a%file", "a%file%file", "b%file", "%file"]))


@given(LEVEL, LEVEL)
def test_shown_names_never_collide(objects: set[str], directories: set[str]) -> None:
    shown = shown_names(objects, directories)
    assert set(shown.values()) == objects
    assert not set(shown) & directories


def test_attribute_object_names() -> None:
    assert escape_directory("") == "%2F"
    assert escape_directory("a/b") == "a%2Fb"
    assert escape_directory("a%2Fb") == "a%252Fb"
    assert escape_directory("%2F") == "%252F"
    assert escape_directory("a\n") == "a%0A"
    assert escape_directory("d/" * 70 + "d").startswith("sha256-")
    assert len(escape_directory("sha256-" + "0" * 64)) == 71
    assert escape_directory("d/" * 50 + "d") == "d%2F" * 50 + "d"
    assert escape_directory("sha256-x") != "sha256-x"


@given(st.lists(NAMES, max_size=3).map("/".join), st.lists(NAMES, max_size=3).map("/".join))
def test_attribute_object_names_are_distinct(left: str, right: str) -> None:
    assert (left == right) == (escape_directory(left) == escape_directory(right))
    assert "/" not in escape_directory(left)


def test_a_segment_longer_than_the_store_can_hold_is_refused() -> None:
    check_segments("a" * 255 + "/" + "b" * 255, 255)
    with pytest.raises(NameTooLong, match="limit of 255 bytes"):
        check_segments(f"a/{'%01' * 86}", 255)


def test_paths_too_long_for_a_key_lie_under_folds():
    deep = "/".join(f"{number:02}" + "d" * 120 for number in range(33))
    parts = deep.split("/")
    seen = {}
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        key = names.to_key(path, "root/")
        assert len(key) <= names.KEY_LIMIT
        assert (key == f"root/{path}") == (len(f"root/{path}") <= names.KEY_LIMIT)
        assert seen.setdefault(key, path) == path
        children = names.places(path, "root/")
        assert all(len(place) <= names.KEY_LIMIT for place in children)
        longest, short = "n" * 255, "n"
        assert names.to_key(f"{path}/{longest}", "root/") == next(
            place + longest for place in children if len(place + longest) <= names.KEY_LIMIT
        )
        assert names.to_key(f"{path}/{short}", "root/") == children[0] + short


def test_keys_a_store_can_hold_are_shown_where_they_are():
    key = "/".join(["d" * 200] * 5 + ["f" * 19])
    assert len(key) == names.KEY_LIMIT
    assert names.to_key(key) == key
    assert names.to_key(f"{key}f") != f"{key}f"
    assert names.places("d" * 200) == ("d" * 200 + "/",)


def test_folds_tell_whose_they_are():
    directory = "/".join(["d" * 250] * 3) + "/" + "e" * 20
    last = names.places(directory, "root/")[-1]
    assert last.startswith(f"root/{names.FOLDS}")
    assert names.folded(f"{directory}/x/y", "root/") == {last: directory}
    assert names.folded("short/path", "root/") == {}
