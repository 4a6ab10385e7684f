"""What a process remembers of directories ends with its time to live, another process's bump, or `forget`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdriver.attributes import AttributeObject
from fsdriver.cache import Epochs
from fsdriver.entry import Entry, Kind
from fsdriver.metadata.directories import Directories
from fsdriver.metadata.directory import MISSING
from tests.clock import Clock

FILE = Entry(Kind.FILE, size=1, version="v1")
DIRECTORY = Entry(Kind.DIRECTORY)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Directories:
    return Directories(Epochs(tmp_path / "epochs"), lambda path: f"store|{path}", ttl=10, negative_ttl=1, clock=clock)


def test_entries_and_absences_expire(memory: Directories, clock: Clock) -> None:
    assert memory.peek("d/a") is None
    memory.learn("d/a", FILE, clock.now)
    memory.learn("d/b", None, clock.now)
    assert memory.peek("d/a") == FILE
    assert memory.peek("d/b") is MISSING
    clock.now += 2
    assert memory.peek("d/a") == FILE
    assert memory.peek("d/b") is None
    clock.now += 9
    assert memory.peek("d/a") is None


def test_a_whole_listing_knows_what_is_absent(memory: Directories) -> None:
    started = memory.begin_listing("d")
    assert memory.install("d", {"a": FILE}, set(), started)
    assert memory.peek("d/zzz") is MISSING
    assert memory.listing("d") == {"a": FILE}


def test_changes_made_while_a_listing_is_under_way_are_kept(memory: Directories) -> None:
    started = memory.begin_listing("d")
    memory.change("d/new", FILE)
    memory.change("d/old", None)
    assert memory.install("d", {"old": FILE, "a": FILE}, set(), started)
    assert memory.listing("d") == {"a": FILE, "new": FILE}


def test_a_change_by_another_process_invalidates(memory: Directories, tmp_path: Path, clock: Clock) -> None:
    other = Directories(Epochs(tmp_path / "epochs"), lambda path: f"store|{path}", 10, 1, clock)
    memory.learn("d/a", FILE, clock.now)
    started = memory.begin_listing("e")
    other.change("d/b", FILE)
    other.change("e/b", FILE)
    assert memory.peek("d/a") is None
    assert not memory.install("e", {}, set(), started)
    assert memory.listing("e") is None


def test_our_own_change_keeps_the_listing(memory: Directories) -> None:
    memory.made_empty("d", DIRECTORY)
    memory.change("d/a", FILE)
    assert memory.listing("d") == {"a": FILE}
    memory.change("d/a", None)
    assert memory.peek("d/a") is MISSING
    assert memory.listing("d") == {}


def test_unverified_names_are_listed_but_not_told(memory: Directories) -> None:
    memory.install("d", {"a": FILE}, {"a"}, memory.begin_listing("d"))
    assert memory.listing("d") == {"a": FILE}
    assert memory.peek("d/a") is None


def test_removing_a_directory_forgets_all_below(memory: Directories) -> None:
    memory.made_empty("d", DIRECTORY)
    memory.made_empty("d/e", DIRECTORY)
    memory.change("d/e/f", FILE)
    memory.change("d", None)
    assert memory.peek("d") is MISSING
    assert memory.peek("d/e/f") is None


KIB = 1 << 10


def small(tmp_path: Path, clock: Clock, limit: int) -> Directories:
    return Directories(Epochs(tmp_path / "epochs"), lambda path: path, 10, 1, clock, limit=limit)


def listed(memory: Directories, path: str, count: int) -> None:
    memory.install(path, {str(i): FILE for i in range(count)}, set(), memory.begin_listing(path))


def weighed(memory: Directories) -> int:
    """What `weight` should be."""
    return sum(directory.weight for directory in memory._directories.values())


def test_listings_are_bounded(tmp_path: Path, clock: Clock) -> None:
    memory = small(tmp_path, clock, 50 * KIB)
    for number in range(20):
        listed(memory, f"d{number}", 30)
        assert memory.weight == weighed(memory) <= 50 * KIB
    kept = [number for number in range(20) if memory.listing(f"d{number}") is not None]
    assert kept == [17, 18, 19]


def test_what_is_used_stays(tmp_path: Path, clock: Clock) -> None:
    memory = small(tmp_path, clock, 50 * KIB)
    for number in range(20):
        listed(memory, f"d{number}", 30)
        assert memory.peek("d0/1") == FILE
    assert [number for number in range(20) if memory.listing(f"d{number}") is not None] == [0, 18, 19]


@pytest.mark.parametrize("entry", [FILE, DIRECTORY, None], ids=["file", "directory", "absent"])
@pytest.mark.parametrize("ours", [True, False])
def test_single_names_are_bounded(tmp_path: Path, clock: Clock, entry: Entry | None, ours: bool) -> None:
    memory = small(tmp_path, clock, 50 * KIB)
    for number in range(2000):
        path = f"d{number % 100}/{number}"
        if ours:
            memory.change(path, entry)
        else:
            memory.learn(path, entry, clock.now)
        assert memory.weight == weighed(memory) <= 50 * KIB


def test_attribute_objects_are_bounded(tmp_path: Path, clock: Clock) -> None:
    memory = small(tmp_path, clock, 50 * KIB)
    records = AttributeObject(entries={str(number): {} for number in range(20)})
    for number in range(20):
        path = f"d{number}"
        memory.learn_attributes(path, memory.at(path), records, clock.now)
        assert memory.weight == weighed(memory) <= 50 * KIB
    assert memory.at("d19").attributes is records
    assert memory.at("d0").attributes is None


def test_a_directory_over_the_bound_is_remembered_alone_while_it_is_fresh(tmp_path: Path, clock: Clock) -> None:
    memory = small(tmp_path, clock, 50 * KIB)
    listed(memory, "before", 10)
    listed(memory, "large", 1000)
    assert len(memory.listing("large") or {}) == 1000
    assert memory.listing("before") is None
    assert memory.peek("large/7") == FILE
    memory.change("large/new", FILE)
    assert memory.peek("large/new") == FILE
    clock.now += 11
    memory.change("large/newer", FILE)
    assert memory.weight == weighed(memory) <= 50 * KIB


def test_changes_and_removals_keep_the_account(memory: Directories) -> None:
    listed(memory, "d", 10)
    memory.change("d/sub", DIRECTORY)
    memory.made_empty("d/made", DIRECTORY)
    memory.change("d/made/x", FILE)
    memory.change("d/3", None)
    memory.forget_entry("d/4")
    memory.change("d/made", None)
    assert memory.weight == weighed(memory)
    memory.forget("", below=True)
    assert memory.weight == weighed(memory) == 0


def test_an_answer_that_was_asked_for_before_a_change_is_older_than_it(memory: Directories, clock: Clock) -> None:
    asked = clock.now
    clock.now += 1
    memory.change("d/made", FILE)
    memory.change("d/gone", None)
    assert memory.learn("d/made", None, asked) == FILE
    assert memory.learn("d/gone", FILE, asked) is None
    assert memory.peek("d/made") == FILE
    assert memory.peek("d/gone") is MISSING


def test_an_answer_older_than_a_change_of_another_process_is_not_remembered(
    memory: Directories, clock: Clock, tmp_path: Path
) -> None:
    started = memory.at("d")
    Directories(Epochs(tmp_path / "epochs"), lambda path: f"store|{path}", 10, 1, clock).change("d/a", FILE)
    assert memory.learn("d/a", None, clock.now, started) is None
    assert memory.peek("d/a") is None


def test_a_listing_that_cannot_tell_attributes_does_not_override_who_asked_for_them(
    memory: Directories, clock: Clock
) -> None:
    asked, parent = clock.now, memory.at("d")
    clock.now += 0.5
    memory.install("d", {"a": FILE}, {"a"}, memory.begin_listing("d"))
    told = Entry(Kind.FILE, size=1, version="v1", mode=0o600)
    assert memory.learn("d/a", told, asked, parent) == told
    assert memory.peek("d/a") == told
