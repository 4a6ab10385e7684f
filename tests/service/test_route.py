"""Routes on real stores: names, bytes and attributes through the journal, in both write modes, and after a fresh start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fsdriver.backends.base import ABSENT
from fsdriver.entry import Changes, Kind
from fsdriver.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    IsDirectory,
    NotDirectory,
    NotFound,
    ReadOnly,
    Unsupported,
)
from fsdriver.routes.route import Route
from fsdriver.runtime import run
from tests.service.routes import Tree, kept, names, read, update, write


def test_everything_posix_survives_a_fresh_start(tree: Tree) -> None:
    route = tree.route
    run(route.mkdir("d", Changes(mode=0o2750, uid=7, gid=8)))
    run(route.mkdir("d/empty", Changes(mode=0o755)))
    write(route, "d/file", b"bytes", Changes(mode=0o755, uid=1, gid=2))
    run(route.set_attributes("d/file", Changes(mtime_ns=123_456_789_987_654_321, xattrs={"user.note": b"\x00\xff"})))
    run(route.make("d/link", Kind.SYMLINK, Changes(), target="../näme with space"))
    run(route.make("d/pipe", Kind.FIFO, Changes(mode=0o600)))
    run(route.link("d/file", "other"))
    tree.settle()
    paths = ["d", "d/empty", "d/file", "d/link", "d/pipe", "other"]
    before = {path: kept(run(route.stat(path))) for path in paths}
    assert before["d/file"].links == ("d/file", "other")
    assert before["d/file"].ino == before["other"].ino
    after = tree.fresh()
    assert {path: kept(run(after.stat(path))) for path in paths} == before
    tree.fresh()
    listed = {f"d/{name}": kept(entry) for name, entry in run(tree.route.list("d")).items()}
    assert {path: listed[path] for path in ("d/file", "d/link", "d/pipe")} == {
        path: before[path] for path in ("d/file", "d/link", "d/pipe")
    }
    assert read(tree.route, "other") == b"bytes"


def test_a_regular_file_is_one_ordinary_object(tree: Tree) -> None:
    write(tree.route, "plain.txt", b"1234567")
    tree.settle()
    assert tree.objects()["plain.txt"] == 7


def test_posix_off_writes_nothing_but_objects(tree: Tree) -> None:
    route = tree.fresh(posix="off")
    run(route.mkdir("d"))
    write(route, "d/file", b"x", Changes(mode=0o755))
    with pytest.raises(Unsupported, match="posix"):
        run(route.make("d/link", Kind.SYMLINK, Changes(), target="x"))
    with pytest.raises(Unsupported, match="posix"):
        run(route.link("d/file", "d/other"))
    tree.settle()
    assert not [key for key in tree.objects() if ".fsdriver" in key]
    assert read(tree.fresh(posix="off"), "d/file") == b"x"


def test_rename_chains_end_as_they_should(tree: Tree) -> None:
    route = tree.route
    write(route, "a", b"first")
    run(route.rename("a", "b"))
    run(route.rename("b", "c"))
    write(route, "a", b"second")
    run(route.rename("a", "b"))
    run(route.remove("c"))
    write(route, "c", b"third")
    assert names(route) == ["b", "c"]
    assert (read(route, "b"), read(route, "c")) == (b"second", b"third")
    tree.settle()
    fresh = tree.fresh()
    assert names(fresh) == ["b", "c"]
    assert (read(fresh, "b"), read(fresh, "c")) == (b"second", b"third")


def test_rename_of_a_stored_file_and_overwriting(tree: Tree) -> None:
    route = tree.route
    write(route, "old", b"old bytes")
    write(route, "new", b"new bytes")
    tree.settle()
    ino = run(route.stat("new")).ino
    run(route.rename("new", "old"))
    assert read(route, "old") == b"new bytes"
    assert run(route.stat("old")).ino == ino
    with pytest.raises(NotFound):
        run(route.stat("new"))
    write(route, "new", b"again")
    assert run(route.stat("new")).ino != ino
    tree.settle()
    fresh = tree.fresh()
    assert (read(fresh, "old"), read(fresh, "new")) == (b"new bytes", b"again")
    assert run(fresh.stat("old")).ino == ino


def test_a_directory_moves_with_all_below(tree: Tree) -> None:
    route = tree.route
    run(route.mkdir("from"))
    run(route.mkdir("from/sub", Changes(mode=0o700)))
    write(route, "from/sub/one", b"1")
    tree.settle()
    write(route, "from/two", b"2")
    run(route.link("from/two", "from/three"))
    run(route.rename("from", "to"))
    assert names(route) == ["to"]
    assert names(route, "to") == ["sub", "three", "two"]
    tree.settle()
    fresh = tree.fresh()
    assert names(fresh) == ["to"]
    assert run(fresh.stat("to/sub")).mode == 0o700
    assert (read(fresh, "to/sub/one"), read(fresh, "to/two")) == (b"1", b"2")
    assert run(fresh.stat("to/two")).links == ("to/three", "to/two")
    assert not [key for key in tree.objects() if "from" in key]


@pytest.mark.parametrize("stored", [True, False])
def test_exchange_swaps_bytes_and_attributes(tree: Tree, stored: bool) -> None:
    route = tree.route
    write(route, "a", b"aaa", Changes(mode=0o600))
    write(route, "b", b"b", Changes(mode=0o644))
    if stored:
        tree.settle()
    run(route.rename("a", "b", exchange=True))
    tree.settle()
    for view in (lambda: route, tree.fresh):
        seen = view()
        assert (read(seen, "a"), read(seen, "b")) == (b"b", b"aaa")
        assert (run(seen.stat("a")).mode, run(seen.stat("b")).mode) == (0o644, 0o600)


def test_hard_links_share_bytes_that_are_written_later(tree: Tree) -> None:
    route = tree.route
    write(route, "a", b"12345")
    run(route.link("a", "b"))
    tree.settle()
    update(route, "b", 0, b"AB")
    run(route.set_attributes("a", Changes(mode=0o600)))
    tree.settle()
    fresh = tree.fresh()
    assert (read(fresh, "a"), read(fresh, "b")) == (b"AB345", b"AB345")
    assert run(fresh.stat("b")).mode == 0o600
    run(fresh.remove("a"))
    tree.settle()
    assert run(tree.fresh().stat("b")).links == ()


def test_publish_replaces_atomically_or_demands_a_new_name(tree: Tree) -> None:
    route = tree.route
    run(route.publish("deep/er/file", b"one"))
    assert names(route) == ["deep"]
    with pytest.raises(AlreadyExists):
        run(route.publish("deep/er/file", b"two", base=ABSENT))
    run(route.publish("deep/er/file", b"three"))
    assert read(route, "deep/er/file") == b"three"
    with pytest.raises(IsDirectory):
        run(route.publish("deep/er", b"x"))
    tree.settle()
    assert read(tree.fresh(), "deep/er/file") == b"three"


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda route: route.mkdir("f"), AlreadyExists),
        (lambda route: route.rmdir("f"), NotDirectory),
        (lambda route: route.rmdir("d"), DirectoryNotEmpty),
        (lambda route: route.remove("d"), IsDirectory),
        (lambda route: route.remove("none"), NotFound),
        (lambda route: route.list("f"), NotDirectory),
        (lambda route: route.list("none"), NotFound),
        (lambda route: route.rename("none", "x"), NotFound),
        (lambda route: route.rename("f", "d"), IsDirectory),
        (lambda route: route.rename("d", "f"), NotDirectory),
        (lambda route: route.rename("f", "d/g", replace=False), AlreadyExists),
        (lambda route: route.open("d"), IsDirectory),
        (lambda route: route.link("f", "d/g"), AlreadyExists),
    ],
)
def test_refusals(tree: Tree, act: Callable[[Route], Any], error: type[OSError]) -> None:
    run(tree.route.mkdir("d"))
    write(tree.route, "d/g", b"g")
    write(tree.route, "f", b"f")
    with pytest.raises(error):
        run(act(tree.route))


def test_a_read_only_route_refuses_every_change(tree: Tree) -> None:
    route = tree.fresh(read_only=True)
    with pytest.raises(ReadOnly):
        run(route.mkdir("d"))
    with pytest.raises(ReadOnly):
        run(route.publish("f", b""))
    assert tree.objects() == {}


def test_attributes_changed_after_the_upload_survive(tree: Tree) -> None:
    route = tree.route
    run(route.make("link", Kind.SYMLINK, Changes(), target="x"))
    write(route, "file", b"x")
    tree.settle()
    for path in ("link", "file"):
        run(route.set_attributes(path, Changes(uid=5, gid=6)))
    tree.settle()
    fresh = tree.fresh()
    assert [(run(fresh.stat(path)).uid, run(fresh.stat(path)).gid) for path in ("link", "file")] == [(5, 6)] * 2


def test_names_of_one_file_show_one_ctime(tree: Tree) -> None:
    route = tree.route
    write(route, "a", b"x")
    run(route.link("a", "b"))
    run(route.link("a", "c"))
    run(route.rename("b", "d"))
    assert len({run(route.stat(name)).ctime_ns for name in "acd"}) == 1


def test_a_listing_costs_one_list_and_one_get(tree: Tree) -> None:
    run(tree.route.mkdir("d", Changes(mode=0o700)))
    for number in range(5):
        write(tree.route, f"d/{number}", b"x", Changes(mode=0o600 + number))
    tree.settle()
    route = tree.fresh()
    requests = route.backend.counters.requests
    before = dict(requests)
    listed = run(route.list("d"))
    assert sorted(entry.mode for entry in listed.values()) == [0o600 + number for number in range(5)]
    spent = {name: count - before.get(name, 0) for name, count in requests.items()}
    assert spent == {"list": 1, "get": 1}


def test_an_overwrite_keeps_mode_and_xattrs(tree: Tree) -> None:
    write(tree.route, "f", b"one", Changes(mode=0o755, xattrs={"user.k": b"v"}))
    tree.settle()
    run(tree.fresh().publish("f", b"two"))
    tree.settle()
    entry = run(tree.fresh().stat("f"))
    assert (entry.mode, entry.xattrs) == (0o755, {"user.k": b"v"})
    assert read(tree.route, "f") == b"two"
