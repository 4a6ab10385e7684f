"""What can be read of a damaged catalog is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fsdriver.errors import ConfigError
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Action, Pending
from fsdriver.writeback.rebuilding import check

ROWS = 3000


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


def test_rows_around_a_damaged_page_are_kept(tmp_path: Path, staging: Path) -> None:
    path = tmp_path / "catalog.db"
    journal = Journal(path)
    with journal.transaction():
        for number in range(ROWS):
            journal.write(Pending("s", f"d/{number:05}", "d/", 0, Action.DELETE, "", f"{number:05}", "v"))
    journal.close()
    data = bytearray(path.read_bytes())
    key = f"d/{ROWS // 2:05}".encode()
    at = data.index(key)
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data[at // size * size : at // size * size + size] = bytes(size)
    path.write_bytes(data)
    found = check(tmp_path, staging, repair=True)
    assert found.problems
    journal = Journal(path)
    kept = {row.key for row in journal.below("s", "")}
    journal.close()
    assert {"d/00000", f"d/{ROWS - 1:05}"} <= kept
    assert len(kept) == found.rows > ROWS / 2


def test_where_nothing_was_ever_written_nothing_is_wrong_and_nothing_made(tmp_path: Path, staging: Path) -> None:
    assert check(tmp_path, staging, repair=True).problems == []
    assert not (tmp_path / "catalog.db").exists()


def test_nobody_opens_a_catalog_that_is_being_repaired(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "catalog.db")
    with pytest.raises(ConfigError, match="some process uses it"):
        check(tmp_path, tmp_path, repair=True)
    journal.close()
    with journal._use.exclusively(), pytest.raises(ConfigError, match="fsck is at work"):
        Journal(tmp_path / "catalog.db")
