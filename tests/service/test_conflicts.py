"""Another writer changes an object meanwhile: its bytes stand, and so do ours, under a name of their own."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import pytest

from fsdriver.errors import Stale
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop, run
from tests.service.routes import Tree, names, read, update, write


async def _foreign_put(route: Route, path: str, data: bytes) -> None:
    await on_loop()
    await route.backend.put(route.key(path), data)


def _conflict_is_told(tree: Tree) -> Any:
    return pytest.raises(Stale, match="another writer") if tree.write == "through" else nullcontext()


def _settled(tree: Tree) -> Route:
    """The tree as another host sees it, once the conflict was told to who waits for the store."""
    if tree.write == "back":
        with pytest.raises(Stale, match="another writer"):
            tree.settle()
    tree.settle()
    return tree.fresh()


def _kept_beside(route: Route, name: str) -> list[bytes]:
    return [read(route, kept) for kept in names(route) if kept.startswith(f"{name}.conflict-")]


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
    fresh = _settled(tree)
    assert read(fresh, "f") == b"theirs, longer"
    assert _kept_beside(fresh, "f") == [b"mine"]


def test_a_rename_that_loses_to_a_foreign_writer_keeps_the_bytes(tree: Tree) -> None:
    route = tree.route
    write(route, "a", b"ours")
    tree.settle()
    assert names(route) == ["a"]
    run(_foreign_put(route, "b", b"theirs"))
    with _conflict_is_told(tree):
        run(route.rename("a", "b"))
    fresh = _settled(tree)
    assert read(fresh, "b") == b"theirs"
    assert _kept_beside(fresh, "b") == [b"ours"]
    assert "a" not in names(fresh)
