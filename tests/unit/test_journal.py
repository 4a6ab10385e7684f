"""The journal keeps desired states: what remains of a sequence of changes, and in which order it may be carried out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsdriver.errors import ConfigError
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import UNKNOWN, Action, AttributeChange, Pending

STORE = "s3|endpoint|bucket"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "catalog.db")
    yield journal
    journal.close()


def put(key: str, base: str | None = "", staging: str = "/staging/1") -> Pending:
    parent = key.rpartition("/")[0]
    return Pending(STORE, key, f"{parent}/" if parent else "", 0, Action.PUT, "", key, base, staging)


def delete(key: str, base: str | None) -> Pending:
    return replace(put(key, base), action=Action.DELETE, staging=None)


def claim(journal: Journal, now: float = 0.0) -> list[str]:
    return [row.key for row in journal.claim(STORE, now, 100)]


def ready(journal: Journal, now: float = 0.0) -> list[str]:
    return [row.key for row in journal.ready(STORE, now, 100)]


def test_a_row_reads_back_as_written(journal: Journal) -> None:
    row = replace(put("d/a"), record={"mode": 420, "xattrs": {"user.x": "AA=="}}, size=7)
    written = journal.write(row)
    assert journal.get(STORE, "d/a") == written == replace(row, seq=written.seq)
    assert journal.children(STORE, "d/") == [written]
    assert journal.count(STORE) == (1, 7)


def test_what_is_pending_is_counted_by_store_and_prefix(journal: Journal) -> None:
    for key in ("a/1", "a/2", "ab/3"):
        journal.write(replace(put(key), size=10))
    journal.write(replace(put("a/4"), store="another", size=10))
    assert journal.count(STORE) == (3, 30)
    assert journal.count(STORE, "a/") == (2, 20)
    assert journal.count("another", "b/") == (0, 0)


def test_a_later_change_of_a_key_keeps_what_the_store_is_known_to_hold(journal: Journal) -> None:
    journal.write(put("a", base="v1"))
    assert journal.write(put("a", base="v9")).base == "v1"


def test_a_change_during_the_upload_learns_the_uploaded_version(journal: Journal) -> None:
    first = journal.write(put("a"))
    assert claim(journal) == ["a"]
    second = journal.write(delete("a", base=""))
    assert (second.base, second.inflight) == (UNKNOWN, True)
    assert ready(journal) == []
    assert journal.finish(first, "v1") is None
    row = journal.get(STORE, "a")
    assert row is not None
    assert (row.action, row.base, row.inflight) == (Action.DELETE, "v1", False)
    assert journal.finish(row, "") is not None
    assert journal.get(STORE, "a") is None


def test_a_key_is_not_touched_while_a_copy_still_reads_from_it(journal: Journal) -> None:
    journal.write(delete("a", base="v1"))
    copy = journal.write(replace(put("b"), action=Action.COPY, staging=None, source="a", source_version="v1"))
    assert ready(journal) == ["b"]
    journal.finish(copy, "v2")
    assert ready(journal) == ["a"]


def test_a_directory_goes_after_all_below_it(journal: Journal) -> None:
    marker = delete("d/", base=None)
    journal.write(marker)
    inner = journal.write(delete("d/x", base="v"))
    journal.write(put("d0"))
    assert ready(journal) == ["d/x", "d0"]
    journal.finish(inner, "")
    assert ready(journal) == ["d/", "d0"]


def test_a_held_row_stands_beside_what_others_see(journal: Journal) -> None:
    shown = journal.write(put("a", base="v1"))
    held = journal.write(replace(put("a", staging="/staging/2"), held=True))
    assert (held.key, held.base, held.held) == ("a", "v1", True)
    assert journal.get(STORE, "a") == shown
    assert journal.children(STORE, "") == journal.below(STORE, "") == [shown]
    assert journal.held_row(STORE, "a") == held
    assert journal.uses("/staging/2")
    assert journal.finish(shown, "v2") is not None
    assert ready(journal) == []
    assert not journal.owes_below(STORE, "")
    (kept,) = journal.held(STORE)
    assert kept.base == "v2"
    journal.let_go(kept)
    (row,) = journal.ready(STORE, 0.0, 100)
    assert (row.key, row.base, row.staging, row.held) == ("a", "v2", "/staging/2", False)
    assert journal.held(STORE) == []


def test_a_held_row_ends_with_the_file(journal: Journal) -> None:
    journal.write(replace(put("a"), held=True))
    journal.forget_held(STORE, "a")
    assert journal.count(STORE) == (0, 0)


def test_a_failed_row_waits_for_its_time(journal: Journal) -> None:
    row = journal.write(put("a"))
    journal.postpone(row, 50.0, "no connection")
    assert ready(journal, 49.0) == []
    assert ready(journal, 50.0) == ["a"]
    failed = journal.get(STORE, "a")
    assert failed is not None
    assert (failed.attempts, failed.error) == (1, "no connection")


def test_what_is_claimed_is_claimed_once(journal: Journal) -> None:
    journal.write(put("a"))
    journal.write(put("b"))
    assert [row.key for row in journal.claim(STORE, 0.0, 1)] == ["a"]
    assert claim(journal) == ["b"]
    assert claim(journal) == []


def test_keys_that_others_still_read_from_are_not_claimed(journal: Journal) -> None:
    journal.write(put("a"))
    journal.write(put("b"))
    assert [row.key for row in journal.claim(STORE, 0.0, 100, {"a"})] == ["b"]


def test_a_record_that_changed_during_the_upload_is_the_one_that_counts(journal: Journal) -> None:
    journal.write(replace(put("a"), record={"mode": 0o644}))
    (row,) = journal.claim(STORE, 0.0, 100)
    assert journal.describe(STORE, "a", {"mode": 0o600})
    ended = journal.finish(row, "v1")
    assert ended is not None
    assert ended.record == {"mode": 0o600}
    assert not journal.describe(STORE, "a", {"mode": 0o600})


def test_the_failure_of_a_replaced_row_does_not_hold_back_its_successor(journal: Journal) -> None:
    first = journal.write(put("a"))
    assert claim(journal) == ["a"]
    second = journal.write(put("a", staging="/staging/2"))
    assert journal.postpone(first, 50.0, "its file is gone") is False
    assert ready(journal, 0.0) == ["a"]
    row = journal.get(STORE, "a")
    assert row is not None
    assert (row.seq, row.base, row.attempts, row.error) == (second.seq, None, 0, None)


def test_of_what_a_dead_one_replaced_while_it_was_sent_nothing_is_known(journal: Journal) -> None:
    journal.write(put("a", base="v1"))
    assert claim(journal) == ["a"]
    journal.write(put("a", staging="/staging/2"))
    journal.reset_inflight(STORE, told_apart=True)
    row = journal.get(STORE, "a")
    assert row is not None
    assert (row.base, row.inflight) == (None, False)


@pytest.mark.parametrize("told_apart", [True, False])
def test_a_new_uploader_does_again_what_a_dead_one_had_under_way(journal: Journal, told_apart: bool) -> None:
    journal.write(put("a", base="v1"))
    assert claim(journal) == ["a"]
    journal.reset_inflight(STORE, told_apart=told_apart)
    row = journal.get(STORE, "a")
    assert row is not None
    assert (row.base, row.inflight, row.doubtful) == ("v1" if told_apart else None, False, True)


def test_a_removal_waits_until_requests_of_the_dead_are_over(journal: Journal) -> None:
    """An upload that comes after the removal of a new file would find nothing that speaks against it."""
    for key in ("a", "b"):
        journal.write(put(key))
    assert claim(journal) == ["a", "b"]
    journal.write(Pending(STORE, "a", "", 0, Action.DELETE, "", "a"))
    journal.reset_inflight(STORE, told_apart=True, ended=1000.0)
    assert [row.key for row in journal.claim(STORE, 999.0, 10)] == ["b"]
    assert [row.key for row in journal.claim(STORE, 1000.0, 10)] == ["a"]


def test_below_takes_a_prefix_literally(journal: Journal) -> None:
    for key in ("d/a", "d/b/c", "da", "d%", "e"):
        journal.write(put(key))
    assert [row.key for row in journal.below(STORE, "d/")] == ["d/a", "d/b/c"]
    assert len(journal.below(STORE, "")) == 5


def test_attribute_changes_that_moved_on_stay(journal: Journal) -> None:
    change = AttributeChange(STORE, "", "d", "x", {"mode": 1})
    journal.attributes.write([change])
    seen = journal.attributes.of_directory(STORE, "", "d")
    journal.attributes.write([replace(change, record=None)])
    journal.attributes.finish(seen.values())
    assert journal.attributes.of_directory(STORE, "", "d")["x"].record is None
    journal.attributes.finish(journal.attributes.of_directory(STORE, "", "d").values())
    assert journal.attributes.directories(STORE) == []


def test_a_failed_transaction_leaves_nothing(journal: Journal) -> None:
    def fail() -> None:
        with journal.transaction():
            journal.write(put("a"))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert journal.count(STORE) == (0, 0)


def test_another_process_sees_rows_at_once(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path / "catalog.db")
    journal.write(put("a"))
    assert other.get(STORE, "a") is not None
    other.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="upgrade fsdriver"):
        Journal(path)


def test_a_name_changes_its_kind_in_order(tmp_path: Path) -> None:
    """Stores with real directories have either a file or a directory of a name."""
    journal = Journal(tmp_path / "catalog.db")

    def owe(key: str, action: Action) -> None:
        parent = key.rstrip("/").rpartition("/")[0] + "/"
        journal.write(Pending("s", key, parent, 0, action, "r", key.strip("/")))

    def ready() -> set[str]:
        return {row.key for row in journal.ready("s", 0.0, 10)}

    owe("r/file/", Action.DELETE)
    owe("r/file", Action.PUT)
    owe("r/dir", Action.DELETE)
    owe("r/dir/", Action.MARKER)
    owe("r/dir/child", Action.PUT)
    assert ready() == {"r/file/", "r/dir"}
    for row in journal.claim("s", 0.0, 10):
        journal.finish(row, "")
    assert ready() == {"r/file", "r/dir/"}
