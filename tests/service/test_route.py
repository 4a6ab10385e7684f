"""Routes on real stores: names, bytes and attributes through the journal, in both write modes, and after a fresh start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from fsdriver.backends.base import ABSENT
from fsdriver.config import Config
from fsdriver.engine import Engine, open_engine
from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    IsDirectory,
    NotDirectory,
    NotFound,
    ReadOnly,
    Stale,
    Unsupported,
)
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop, run

PLAIN = Changes()
Mode = Literal["back", "through"]


@dataclass
class Tree:
    """A route of one engine, and how to start over with nothing local."""

    config: dict[str, Any]
    places: Path
    write: Mode
    engine: Engine

    @property
    def route(self) -> Route:
        return self.engine.routes[0]

    def settle(self) -> None:
        run(self.engine.drain(30))

    def fresh(self, **route: Any) -> Route:
        """The same store seen by a host that knows nothing."""
        self.engine.close()
        for place in ("cache", "state"):
            shutil.rmtree(self.places / place)
        table = self.config | {"route": [self.config["route"][0] | route]}
        self.engine = open_engine(Config.model_validate(table), write=self.write)
        return self.route

    def objects(self) -> dict[str, int]:
        """Keys below the route and their sizes, as another tool lists them."""
        return run(_objects(self.route))


async def _objects(route: Route) -> dict[str, int]:
    await on_loop()
    found = {}
    async for page in route.backend.list(route.root_key, delimiter=False):
        found |= {
            info.key.removeprefix(route.root_key): info.size for info in page.objects if info.key != route.root_key
        }
    return found


@pytest.fixture(params=["local", "s3"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.getfixturevalue(f"{request.param}_config")


@pytest.fixture(params=["back", "through"])
def tree(config: dict[str, Any], tier_places: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    tree = Tree(config, tier_places, request.param, open_engine(Config.model_validate(config), write=request.param))
    yield tree
    tree.engine.close()


def write(route: Route, path: str, data: bytes, changes: Changes = PLAIN) -> None:
    """Create or replace a file the way the mount does."""
    staged = route.new_file()
    run(route.create(path, staged, changes))
    os.pwrite(staged.fileno(), data, 0)
    run(route.commit(path, staged))
    run(route.release(path, staged))


def update(route: Route, path: str, offset: int, data: bytes) -> None:
    """Write inside an existing file the way the mount does."""
    staged = run(route.stage(path, run(route.stat(path)), None))
    os.pwrite(staged.fileno(), data, offset)
    run(route.commit(path, staged))
    run(route.release(path, staged))


def read(route: Route, path: str) -> bytes:
    return bytes(run(route.read(path)))


def names(route: Route, path: str = "") -> list[str]:
    return sorted(run(route.list(path)))


def kept(entry: Entry) -> Entry:
    """What must survive: everything but where the bytes are."""
    return replace(entry, version=None, staging=None, key=None)


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


def test_overwriting_again_and_again_is_no_conflict(tree: Tree) -> None:
    for number in range(30):
        write(tree.route, "f", str(number).encode())
        if number % 7 == 0:
            update(tree.route, "f", 0, b"x")
    tree.settle()
    assert names(tree.route) == ["f"]
    assert read(tree.fresh(), "f") == b"29"


def test_a_foreign_overwrite_is_not_lost_and_neither_are_our_bytes(tree: Tree) -> None:
    route = tree.route
    write(route, "f", b"ours")
    tree.settle()
    staged = run(route.stage("f", run(route.stat("f")), None))
    run(_foreign_put(route, "f", b"theirs, longer"))
    os.pwrite(staged.fileno(), b"mine", 0)
    with _conflict_is_told(tree):
        run(route.commit("f", staged))
    run(route.release("f", staged))
    if tree.write == "back":
        with pytest.raises(Stale, match="another writer"):
            tree.settle()
    tree.settle()
    fresh = tree.fresh()
    kept_as = [name for name in names(fresh) if name.startswith("f.conflict-")]
    assert read(fresh, "f") == b"theirs, longer"
    assert [read(fresh, name) for name in kept_as] == [b"mine"]


async def _foreign_put(route: Route, path: str, data: bytes) -> None:
    await on_loop()
    await route.backend.put(route.key(path), data)


def _conflict_is_told(tree: Tree) -> Any:
    from contextlib import nullcontext

    return pytest.raises(Stale, match="another writer") if tree.write == "through" else nullcontext()


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


def test_another_process_sees_pending_changes_at_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    route = tree.route
    write(route, "kept", b"k")
    tree.settle()
    other = Engine(tree.engine.config, tree.write)
    assert sorted(run(other.routes[0].list(""))) == ["kept"]
    write(route, "new", b"n")
    run(route.remove("kept"))
    assert sorted(run(other.routes[0].list(""))) == ["new"]
    assert read(other.routes[0], "new") == b"n"
    other.close()


def test_a_file_being_written_is_not_seen_by_others(tree: Tree) -> None:
    route = tree.route
    staged = route.new_file()
    run(route.create("f", staged, Changes()))
    os.pwrite(staged.fileno(), b"half", 0)
    run(route.fsync("f", staged))
    other = Engine(tree.engine.config, tree.write)
    assert run(other.routes[0].list("")) == {}
    os.pwrite(staged.fileno(), b"whole", 0)
    run(route.commit("f", staged))
    assert read(other.routes[0], "f") == b"whole"
    run(route.release("f", staged))
    other.close()


def test_an_unlinked_open_file_leaves_nothing(tree: Tree) -> None:
    route = tree.route
    staged = route.new_file()
    run(route.create("f", staged, Changes()))
    run(route.remove("f"))
    os.pwrite(staged.fileno(), b"still writable", 0)
    run(route.release(None, staged))
    tree.settle()
    assert names(tree.fresh()) == []
    assert list(tree.engine.staging.directory.iterdir()) == []


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


def test_a_rename_that_loses_to_a_foreign_writer_keeps_the_bytes(tree: Tree) -> None:
    route = tree.route
    write(route, "a", b"ours")
    tree.settle()
    assert names(route) == ["a"]
    run(_foreign_put(route, "b", b"theirs"))
    with _conflict_is_told(tree):
        run(route.rename("a", "b"))
    if tree.write == "back":
        with pytest.raises(Stale, match="another writer"):
            tree.settle()
    tree.settle()
    fresh = tree.fresh()
    kept_as = [name for name in names(fresh) if name.startswith("b.conflict-")]
    assert read(fresh, "b") == b"theirs"
    assert [read(fresh, name) for name in kept_as] == [b"ours"]
    assert "a" not in names(fresh)


def test_a_reader_follows_a_rename_that_is_carried_out_meanwhile(tree: Tree) -> None:
    route = tree.route
    write(route, "a", b"x" * 3_000_000)
    tree.settle()
    tree.fresh()
    route = tree.route
    with run(route.open("a")) as reader:
        run(route.rename("a", "b"))
        tree.settle()
        run(route.rename("b", "c"))
        tree.settle()
        assert bytes(run(reader.read(2_500_000, 10))) == b"x" * 10


def test_an_overwrite_keeps_mode_and_xattrs(tree: Tree) -> None:
    write(tree.route, "f", b"one", Changes(mode=0o755, xattrs={"user.k": b"v"}))
    tree.settle()
    run(tree.fresh().publish("f", b"two"))
    tree.settle()
    entry = run(tree.fresh().stat("f"))
    assert (entry.mode, entry.xattrs) == (0o755, {"user.k": b"v"})
    assert read(tree.route, "f") == b"two"


def test_a_renamed_open_file_stays_synced(tree: Tree) -> None:
    route = tree.route
    staged = route.new_file()
    run(route.create("a", staged, Changes()))
    os.pwrite(staged.fileno(), b"synced", 0)
    run(route.fsync("a", staged))
    run(route.rename("a", "b"))
    held = tree.engine.journal.held(route.backend.identity)
    assert [(row.path, row.staging) for row in held] == [("b", str(staged.path))]
    run(route.release("b", staged))
    tree.settle()
    assert names(tree.fresh()) == ["b"]


def test_sync_of_a_reopened_file_hides_nothing(tree: Tree) -> None:
    route = tree.route
    write(route, "f", b"closed")
    staged = run(route.stage("f", run(route.stat("f")), None))
    os.pwrite(staged.fileno(), b"reopen", 0)
    run(route.fsync("f", staged))
    other = Engine(tree.engine.config, tree.write)
    assert len(read(other.routes[0], "f")) == 6
    run(route.release("f", staged))
    other.close()
