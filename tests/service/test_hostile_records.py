"""Who may write to a part of a bucket writes attribute objects that lie: nothing outside that part is touched or shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fsdriver.errors import Corrupt
from fsdriver.metadata import listing
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop, run
from tests.service.routes import Tree, names, read, update, write


async def _replace(route: Route, key: str, body: bytes) -> None:
    await on_loop()
    await route.backend.put(key, body)


def plant(route: Route, directory: str, entries: dict[str, Any]) -> None:
    """Replace the attribute object of a directory, as another tool can."""
    document = {"format": "fsdriver-attributes", "version": 1, "self": {}, "entries": entries}
    run(_replace(route, route.meta_key(directory), json.dumps(document).encode()))


def record_of(route: Route, path: str, **fields: Any) -> dict[str, Any]:
    return {"etag": run(route.stat(path)).version, **fields}


@pytest.fixture
def victim(tree: Tree) -> int:
    """A file that the attacker may not write to, beside one of his own; its inode number."""
    write(tree.route, "private/v", b"theirs")
    write(tree.route, "shared/a", b"mine")
    tree.settle()
    route = tree.fresh()
    return run(route.stat("private/v")).ino


@pytest.mark.parametrize("listed", [False, True])
def test_a_record_does_not_make_a_file_a_name_of_another(tree: Tree, victim: int, listed: bool) -> None:
    route = tree.route
    plant(
        route,
        "shared",
        {"a": record_of(route, "shared/a", ino=victim, mode=0o644, links=["private/v", "shared/a"])},
    )
    route = tree.fresh()
    if listed:
        assert names(route, "shared") == ["a"]
    entry = run(route.stat("shared/a"))
    assert entry.links == ()
    assert entry.ino != victim
    update(route, "shared/a", 0, b"MINE")
    tree.settle()
    route = tree.fresh()
    assert read(route, "shared/a") == b"MINE"
    assert read(route, "private/v") == b"theirs"


@pytest.mark.parametrize("link", ["../v", ".fsdriver/meta/%2F"])
def test_links_that_are_no_paths_are_left_out(tree: Tree, victim: int, link: str) -> None:
    route = tree.route
    plant(route, "shared", {"a": record_of(route, "shared/a", ino=victim, mode=0o600, links=[link, "shared/a"])})
    route = tree.fresh()
    assert run(route.stat("shared/a")).links == ()
    update(route, "shared/a", 0, b"MINE")
    tree.settle()
    assert read(tree.fresh(), "shared/a") == b"MINE"


def test_one_mad_record_does_not_hide_the_others(tree: Tree, victim: int) -> None:
    route = tree.route
    write(route, "shared/b", b"b")
    tree.settle()
    version = run(route.stat("shared/b")).version
    mad = {"etag": run(route.stat("shared/a")).version, "uid": -1, "ino": 2**80, "mtime": 10**40, "rdev": -3}
    plant(route, "shared", {"a": mad, "b": {"etag": version, "mode": 0o4750, "uid": 7}, "../../etc": {"mode": 1}})
    route = tree.fresh()
    assert names(route, "shared") == ["a", "b"]
    entry = run(route.stat("shared/b"))
    assert (entry.mode, entry.uid) == (0o4750, 7)


def test_an_attribute_object_that_is_none_is_an_error_of_its_directory_alone(tree: Tree, victim: int) -> None:
    run(_replace(tree.route, tree.route.meta_key("shared"), b"[" * 100_000))
    route = tree.fresh()
    with pytest.raises(Corrupt, match="attribute object"):
        run(route.list("shared"))
    assert names(route, "private") == ["v"]


def test_an_attribute_object_of_any_size_is_not_read(tree: Tree, victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGEST", 1000)
    run(_replace(tree.route, tree.route.meta_key("shared"), b" " * 1001))
    route = tree.fresh()
    read_before = route.backend.counters.bytes_read
    with pytest.raises(Corrupt, match="1001 bytes"):
        run(route.list("shared"))
    assert route.backend.counters.bytes_read == read_before
