"""Group commit: those who ask for a sync at the same time share one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsdriver.errors import FsdriverError
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.syncing import SharedSync
from tests.waiting import wait_for


def test_who_asks_during_a_sync_shares_the_next_one() -> None:
    begun, go_on, runs = threading.Event(), threading.Event(), []

    def act() -> None:
        runs.append(len(runs))
        begun.set()
        go_on.wait(60)

    sync = SharedSync(act)
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(sync)
        begun.wait(60)
        others = [pool.submit(sync) for _ in range(11)]
        wait_for(lambda: sync._asked == 12)
        assert not any(one.done() for one in others)
        go_on.set()
        for one in (first, *others):
            one.result(60)
    assert runs == [0, 1]
    assert sync.count == 2


def test_a_sync_that_fails_is_tried_by_the_next_who_waits() -> None:
    failures = [OSError(5, "Input/output error")]

    def act() -> None:
        if failures:
            raise failures.pop()

    sync = SharedSync(act)
    with pytest.raises(OSError, match="Input/output"):
        sync()
    sync()
    assert sync.count == 1


def test_the_journal_is_synced(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "catalog.db")
    journal.note_synced(["a"], asked=False)
    journal.make_durable()
    assert journal.syncs == 1
    journal.close()


def test_a_journal_whose_log_cannot_be_synced_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "catalog.db")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", fail)
    with pytest.raises(FsdriverError, match="the journal cannot be written to the disk"):
        journal.make_durable()
    journal.close()
