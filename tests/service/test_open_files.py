"""Files of a route that are open: what others see of them, and what becomes of them when their names change."""

from __future__ import annotations

import os

import pytest

from fsdriver.engine import Engine
from fsdriver.entry import Changes
from fsdriver.runtime import run
from tests.service.routes import Tree, names, read, write


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
