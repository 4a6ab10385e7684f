"""Checksums of files that wait for a store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.errors import Corrupt
from fsdriver.writeback import sums
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Action, Pending
from fsdriver.writeback.staging import signature

AGE = 10
"""Seconds since the last write."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "catalog.db")
    yield journal
    journal.close()


@pytest.fixture
def row(tmp_path: Path) -> Pending:
    path = tmp_path / "staged"
    path.write_bytes(b"written " * 1000)
    then = time.time_ns() - AGE * 10**9
    os.utime(path, ns=(then, then))
    return Pending("s", "p/f", "p/", then, Action.PUT, "p", "f", staging=str(path), size=8000)


def compare(journal: Journal, row: Pending, *, whole: bool) -> None:
    with open(row.staging, "rb") as file:
        data = file.read() if whole else None
        journal.sums.compare(row, file.fileno(), signature(file.fileno()), data)


def damage(row: Pending) -> None:
    """As a disk does: no time moves."""
    status = os.stat(row.staging)
    with open(row.staging, "r+b") as file:
        file.seek(4000)
        file.write(b"X")
    os.utime(row.staging, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("whole", [True, False])
def test_damage_is_found(journal: Journal, row: Pending, whole: bool) -> None:
    journal.sums.note(row.staging)
    compare(journal, row, whole=whole)
    damage(row)
    with pytest.raises(Corrupt, match="checksum"):
        compare(journal, row, whole=whole)


def test_what_was_written_since_is_no_damage(journal: Journal, row: Pending) -> None:
    journal.sums.note(row.staging)
    Path(row.staging).write_bytes(b"later")
    compare(journal, row, whole=True)


def test_without_a_sum_nothing_is_compared(journal: Journal, row: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(row)
    compare(journal, row, whole=True)
    monkeypatch.setattr(sums, "MOST", 100)
    journal.sums.note(row.staging)
    damage(row)
    compare(journal, row, whole=True)
    os.utime(row.staging)
    journal.sums.note(row.staging)  # it may be written to again without moving its time
    damage(row)
    compare(journal, row, whole=True)


def test_sums_go_with_their_files(journal: Journal, row: Pending) -> None:
    def known() -> int:
        ((count,),) = journal.rows("SELECT count(*) FROM sums")
        return int(count)

    journal.write(row)
    journal.sums.note(row.staging)
    journal.sums.prune()
    assert known() == 1
    journal.note_synced([row.staging], asked=False)
    journal.forget_synced(row.staging)
    assert known() == 0
    journal.sums.note(row.staging)
    journal.forget("s", "p/f")
    journal.sums.prune()
    assert known() == 0
    journal.sums.note("/not/there")
    assert known() == 0
