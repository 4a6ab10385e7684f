"""Marks in attribute objects: each process removes its own and those of dead processes of the same journal."""

from __future__ import annotations

import os
import subprocess
import sys

from fsdriver.attributes import AttributeObject
from fsdriver.routes.marks import own_marks

MINE, OTHER = "0000abcd-", "12345678-"


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_process_leaves_one_mark_and_removes_it() -> None:
    (mark,) = marks = own_marks((), MINE, present=True)
    assert mark.startswith(f"{MINE}{os.getpid()}")
    assert own_marks(marks, MINE, present=True) == marks
    assert own_marks(marks, MINE, present=False) == ()


def test_marks_of_dead_processes_go_only_with_their_journal() -> None:
    dead = dead_process()
    marks = (f"{MINE}{dead}-1", f"{OTHER}{dead}-1")
    assert own_marks(marks, MINE, present=False) == (f"{OTHER}{dead}-1",)


def test_the_number_of_a_dead_process_may_be_another_one_s() -> None:
    assert own_marks((f"{MINE}{os.getpid()}-1",), MINE, present=False) == ()


def test_marks_of_other_journals_mean_that_records_may_be_missing() -> None:
    stored = AttributeObject(writers=own_marks((), MINE, present=True))
    assert not stored.is_empty()
    assert not stored.lacks_records(MINE)
    assert stored.lacks_records(OTHER)
    assert AttributeObject.parse(stored.dump(), "v", "key").writers == stored.writers
    assert b"writers" not in AttributeObject().dump()
