"""The journal's log is cut at any byte of its last records: what is left is what one of the commits left."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.backends.base import ABSENT
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Action, Pending

LAST = 3 * 4120
"""Bytes of its last three records."""
State = frozenset[tuple[str, str, str | None, int]]


def row(name: str, action: Action = Action.PUT, *, held: bool = False, staging: str | None = None) -> Pending:
    return Pending(
        "s", f"p/{name}", "p/", 0, action, "p", name, ABSENT, staging or f"/staging/{name}", size=len(name), held=held
    )


def state_of(journal: Journal) -> State:
    rows = [*journal.below("s", ""), *journal.held("s")]
    return frozenset((one.key, str(one.action), one.staging, one.held) for one in rows)


def commits(journal: Journal) -> Iterator[State]:
    """What programs do, one commit each; yields what the journal holds after it."""
    for number in range(4):
        name = f"checkpoint-{number}"
        journal.write(row(f"{name}.tmp", held=True))
        yield state_of(journal)
        with journal.transaction():
            journal.write(row(f"{name}.tmp"))
            journal.forget_held("s", f"p/{name}.tmp")
        yield state_of(journal)
        with journal.transaction():
            journal.write(row("checkpoint", staging=f"/staging/{name}.tmp"))
            journal.forget("s", f"p/{name}.tmp")
        yield state_of(journal)
        with journal.transaction():
            for other in range(20):
                journal.write(row(f"directory-{number}/{other}"))
        yield state_of(journal)
        for one in journal.claim("s", 1e12, 3):
            journal.finish(one, "version")
            yield state_of(journal)


def cut_everywhere(tmp_path: Path, step: int, last: int | None = None) -> int:
    """Returns how many cuts were looked at."""
    live = tmp_path / "live"
    live.mkdir()
    journal = Journal(live / "catalog.db")
    allowed: list[State] = [state_of(journal), *commits(journal)]
    cuts = 0
    # The log's length does not shrink: what is written last stands at its end.
    size = (live / "catalog.db-wal").stat().st_size
    place = tmp_path / "cut"
    reached = 0
    for end in range(size % step if last is None else size - last, size + 1, step):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        shutil.copy(live / "catalog.db", place)
        shutil.copy(live / "catalog.db-wal", place)
        with open(place / "catalog.db-wal", "r+b") as log:
            log.truncate(end)
        with sqlite3.connect(place / "catalog.db") as database:
            known = database.execute("SELECT count(*) FROM sqlite_master WHERE name='pending'").fetchone()[0]
        database.close()
        left = Journal(place / "catalog.db")
        found = state_of(left)
        left.close()
        if known:
            assert found in allowed, f"cut at byte {end} of {size}"
            at = max(index for index, state in enumerate(allowed) if state == found)
            assert at >= reached, f"cut at byte {end} of {size}: a longer log holds less"
            reached = min(index for index, state in enumerate(allowed) if state == found)
        cuts += 1
    assert found == allowed[-1]
    journal.close()
    return cuts


def test_the_log_cut_at_many_bytes(tmp_path, record_property) -> None:
    record_property("reliability:power:journal cut at a byte", cut_everywhere(tmp_path, 1999))


@pytest.mark.nightly
@pytest.mark.timeout(0)
def test_the_log_cut_at_every_byte(tmp_path, record_property) -> None:
    record_property("reliability:power:journal cut at a byte", cut_everywhere(tmp_path, 1, LAST))
