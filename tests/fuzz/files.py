"""Files that a crash, a bad disk or a hand may have spoilt: the journal, and maps of partial objects."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fsdriver.cache.partial import Damaged, Partial, map_of
from fsdriver.errors import ConfigError, FsdriverError
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Action, AttributeChange, Pending
from tests.fuzz.case import Case

GRAIN = 32 << 10
SPOTS = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=40)), max_size=6)
"""Where in a file, and what is written there."""
CUTS = st.none() | st.floats(0, 1)


def spoil(data: bytes, spots: list[tuple[float, bytes]], cut: float | None) -> bytes:
    """A copy of the content of a file with other bytes at some places, and perhaps shorter."""
    changed = bytearray(data)
    for at, new in spots:
        start = int(at * max(0, len(changed) - 1))
        changed[start : start + len(new)] = new
    return bytes(changed if cut is None else changed[: int(cut * len(changed))])


def _fill(journal: Journal) -> None:
    with journal.transaction():  # one: each would wait for a busy disk
        for number in range(40):
            name, record = f"d/{number}", {"mode": 0o644, "ino": number + 1, "links": ["a", "b"]}
            journal.write(
                Pending("s", name, "d/", 0, Action.PUT, "", name, "", f"/x/{number}", size=number, record=record)
            )
        journal.attributes.write([AttributeChange("s", "", "d", f"n{n}", {"mode": 1}) for n in range(20)])


def _use(journal: Journal) -> None:
    journal.get("s", "d/1")
    journal.below("s", "")
    journal.children("s", "d/")
    journal.ready("s", 1e12, 100)
    journal.held("s")
    journal.count("s")
    journal.implied_directories("s", "")
    journal.attributes.directories("s")
    journal.attributes.of_directory("s", "", "d")
    for row in journal.claim("s", 1e12, 5):
        journal.finish(row, "v")


def journal_bytes(place: Path) -> Case:
    """Any bytes in the database itself."""
    good = place / "good.db"
    journal = Journal(good)
    _fill(journal)
    journal.close()
    data, spoilt = good.read_bytes(), place / "spoilt.db"

    def check(example: tuple[list[tuple[float, bytes]], float | None]) -> None:
        for file in place.glob("spoilt.db*"):
            file.unlink()
        spoilt.write_bytes(spoil(data, *example))
        with contextlib.suppress(FsdriverError):
            opened = Journal(spoilt)
            try:
                _use(opened)
            finally:
                opened.close()

    return Case(st.tuples(SPOTS, CUTS), check)


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
COLUMNS = [
    "action",
    "root",
    "path",
    "base",
    "staging",
    "source",
    "size",
    "record",
    "inflight",
    "held",
    "attempts",
    "error",
]


def journal_values(place: Path) -> Case:
    """Any values in the columns of a row."""
    journal = Journal(place / "catalog.db")
    _fill(journal)
    other = sqlite3.connect(place / "catalog.db", isolation_level=None)

    def check(example: tuple[str, Any]) -> None:
        column, value = example
        other.execute("BEGIN")
        try:
            other.execute(f"UPDATE pending SET {column}=? WHERE key='d/1'", (value,))
        except sqlite3.IntegrityError:
            other.execute("ROLLBACK")
            return
        other.execute("COMMIT")
        with contextlib.suppress(FsdriverError):
            _use(journal)
        other.execute("DELETE FROM pending")
        _fill(journal)

    def end() -> None:
        other.close()
        journal.close()

    return Case(st.tuples(st.sampled_from(COLUMNS), VALUES), check, end)


def partial_maps(place: Path) -> Case:
    """Any bytes in the map of a partial object: nothing is read that was not fetched."""
    size, path = 5 * GRAIN + 1000, place / "partial"
    content = os.urandom(size)
    partial = Partial(path, size)
    partial.write(0, memoryview(content)[: 2 * GRAIN])
    partial.write(4 * GRAIN, memoryview(content)[4 * GRAIN :])
    data = map_of(path).read_bytes()
    del partial

    def check(example: tuple[list[tuple[float, bytes]], float | None]) -> None:
        map_of(path).write_bytes(spoil(data, *example))
        try:
            opened = Partial(path, size)
        except (Damaged, ConfigError):  # a newer format
            return
        for start, end in opened.missing(0, size):
            assert 0 <= start < end <= size
        for at in range(0, size, GRAIN):
            end = min(at + GRAIN, size)
            found = opened.read(at, end)
            assert found is None or bytes(found) == content[at:end]

    return Case(st.tuples(SPOTS, CUTS), check)


CASES = {
    "bytes of the journal": journal_bytes,
    "values in the journal": journal_values,
    "maps of partial files": partial_maps,
}
