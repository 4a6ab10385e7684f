"""What the model found, each as the shortest sequence of operations that showed it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from tests.mount.model.sides import Sides
from tests.mount.model.world import READ, UPDATE, WRITE, World


@pytest.fixture
def world(sides: Sides, request) -> Iterator[World]:
    made = World(sides, request.node.name.translate(str.maketrans("[]/", "___")))
    yield made
    made.end()


def test_attributes_of_a_directory_are_told_to_other_processes(world):
    world.mkdir("a")
    world.mkdir("a/a")
    world.check_fsspec()
    world.chmod("a/a", 0o700)
    world.check_fsspec()
    assert stat.S_IMODE(world.sides.fs.info(world.path("a/a"))["mode"]) == 0o700


def test_file_appended_to_inside_an_exception_handler_is_published(world):
    try:
        raise LookupError("handled by the caller")
    except LookupError:
        world.fs_append("a", 300_000)
    world.check()


def test_attributes_sent_since_another_process_looked_are_kept_by_its_overwrite(world):
    world.write("a", 100)
    world.fs_read("b", 0, 1)
    world.sync()
    world.fs_append("a", 1)
    world.check()


def test_overwriting_a_foreign_object_does_not_take_attributes_from_the_one_before_it(world):
    world.write("a", 5000)
    world.foreign_put("a", 4096)
    world.fs_write("a", 1)
    world.check()


def test_copy_onto_a_hard_link_is_a_file_of_its_own(world):
    world.append("a", 3000)
    world.link("a", "b")
    world.fs_copy("a", "b")
    world.check()
    world.check_store()


def test_overwriting_a_hard_link_through_fsspec_leaves_the_other_names_alone(world):
    world.append("a", 3000)
    world.link("a", "b")
    world.fs_write("b", 10)
    world.check()
    world.check_store()


def test_file_that_is_open_for_writing_is_renamed_before_it_is_written(world):
    world.write("a", 10)
    world.sync()
    world.open(0, "a", UPDATE)
    world.rename("a", "b")
    world.sync()
    world.handle_write(0, 4096, 1000)
    world.close(0)
    world.check()
    world.check_store()


def test_links_and_renames_of_files_another_process_has_just_sent(world):
    for number in range(10):
        world.write("a", 10 + number)
        world.fs_copy("a", "b")
        world.fs_move("b", "a")
        world.check()
    world.open(0, "a", READ)
    world.check_store()
    assert os.listdir(world.ours) == ["a"]


def test_the_other_name_of_a_hard_link_stays_when_fsspec_removes_one(world):
    world.append("a", 4096)
    world.link("a", "b")
    world.fs_remove("a")
    world.check()


def test_file_opened_for_writing_while_it_is_pending_and_closed_unwritten(world):
    for number in range(20):
        world.append("a", 10 + number)
        world.open(0, "a", WRITE)
        world.check()
        world.close(0)
        world.check_store()


def test_file_read_by_another_process_while_its_upload_ends_leaves_no_staging_file(world):
    for number in range(5):
        world.write(f"a{number}", 5000)
        world.check_fsspec()
    world.check_store()


def test_file_written_while_its_fetched_bytes_are_open_leaves_no_staging_file(world):
    world.fs_write("b", 5000)
    world.open(1, "b", READ)
    world.append("b", 10)
    world.close(1)
    world.check_store()


def test_directory_in_the_place_of_a_file_whose_removal_is_pending(world):
    for _ in range(5):
        world.write("a", 5000)
        world.sync()
        world.unlink("a")
        world.mkdir("a")
        world.check_fsspec()
        world.rmdir("a")


def test_open_file_that_another_process_removes_keeps_its_attributes(world):
    world.write("a", 5000)
    world.open(0, "a", READ)
    world.check()
    world.fs_remove("a")
    world.check()


def test_writing_into_a_directory_keeps_its_attributes(world):
    world.mkdir("b")
    world.chmod("b", 0o1777)
    world.fs_append("b/b", 300_000)
    world.check_fsspec()


def test_file_moves_into_a_directory_that_takes_its_old_name(world):
    for _ in range(5):
        world.write("a", 5000)
        world.sync()
        world.rename("a", "b")
        world.mkdir("a")
        world.rename("b", "a/b")
        world.check_store()
        world.rename("a", "b")
        world.rename("b/b", "a")
        world.check_store()
        world.rmdir("b")
        world.unlink("a")
    world.check_store()


def test_what_another_process_writes_is_seen_where_a_reader_has_open_what_was_truncated(world):
    world.write("b", 10)
    world.sync()
    world.open(1, "b", READ)
    world.truncate("b", 5000)
    world.fs_append("b", 1)
    world.check()


def test_a_file_opened_for_writing_beside_a_reader_and_not_written_to_is_still_the_same(world):
    world.write("b", 5000)
    world.sync()
    world.open(1, "b", READ)
    world.open(2, "b", UPDATE)
    world.close(2)
    world.sync()
    world.check()
    world.fs_append("b", 1)
    world.check()


def test_a_file_takes_the_name_of_a_directory_that_was_renamed_a_moment_ago(world):
    world.fs_mkdir("a")
    world.write("a/b", 10)
    world.rename("a", "b")
    world.fs_append("a", 4096)
    world.check()
