"""What a record becomes when the tiers hold something else."""

from __future__ import annotations

from fsdriver.backends.model import ObjectInfo
from fsdriver.tiers.records import Copy, CopyState, Record
from fsdriver.tiers.settling import agrees, settle, unasked
from fsdriver.tiers.tier import marks

GOOD, OWED, SHADOWED, CORRUPT = CopyState.GOOD, CopyState.OWED, CopyState.SHADOWED, CopyState.CORRUPT


def record(version: str = "v1", mtime_ns: int = 100, **copies: Copy) -> Record:
    return Record("k", version, 5, mtime_ns, copies)


def info(version: str, mtime_ns: int = 100, size: int = 5, of: str | None = None) -> ObjectInfo:
    return ObjectInfo("root/k", size, mtime_ns, version, marks(of, 100) if of else {})


def states(made: Record | None) -> dict[str, CopyState]:
    assert made is not None
    return {tier: copy.state for tier, copy in made.copies.items()}


def test_what_fits_agrees() -> None:
    known = record(hot=Copy("v1"), cold=Copy("c"))
    assert agrees(known, {"hot": info("v1"), "cold": info("c")}, ())
    assert agrees(known, {"hot": info("v1")}, ("cold",))
    assert not agrees(known, {"hot": info("v1")}, ())
    assert not agrees(known, {"hot": info("v2"), "cold": info("c")}, ())
    assert agrees(None, {}, ())


def test_an_unknown_object_is_adopted_as_what_it_says_it_is() -> None:
    made = settle("k", None, {"cold": info("c", 700, of="v1")}, ())
    assert made is not None
    assert (made.version, made.mtime_ns, made.copies) == ("v1", 100, {"cold": Copy("c")})
    foreign = settle("k", None, {"cold": info("c", 700)}, ())
    assert foreign is not None
    assert (foreign.version, foreign.mtime_ns) == ("c", 700)


def test_of_several_unknown_objects_the_newest_counts() -> None:
    made = settle("k", None, {"hot": info("h", 50), "cold": info("c", 700), "far": info("f", 800, of="c")}, ())
    assert made is not None
    assert made.version == "c"
    assert states(made) == {"hot": SHADOWED, "cold": GOOD, "far": GOOD}


def test_what_somebody_else_wrote_over_a_copy_is_the_object() -> None:
    known = record(hot=Copy("v1"), cold=Copy("c"))
    made = settle("k", known, {"hot": info("new", 50), "cold": info("c")}, ())
    assert made is not None
    assert made.version == "new"
    assert states(made) == {"hot": GOOD, "cold": SHADOWED}


def test_what_somebody_else_wrote_elsewhere_is_the_object_whatever_its_time() -> None:
    made = settle("k", record(cold=Copy("c")), {"hot": info("new", 99), "cold": info("c")}, ())
    assert made is not None
    assert made.version == "new"
    assert states(made) == {"hot": GOOD, "cold": SHADOWED}


def test_what_a_tier_had_that_could_not_be_asked_is_older() -> None:
    known = record(hot=Copy("v1"), cold=unasked())
    found = {"hot": info("v1"), "cold": info("old", 999)}
    assert not agrees(known, found, ())
    made = settle("k", known, found, ())
    assert made is not None
    assert (made.version, made.copies["cold"]) == ("v1", Copy("old", SHADOWED))
    nothing = settle("k", known, {"hot": info("v1")}, ())
    assert nothing is not None
    assert states(nothing) == {"hot": GOOD}
    removed = settle("k", record("", cold=unasked()), {"cold": info("old")}, ())
    assert removed is not None
    assert (removed.removed, states(removed)) == (True, {"cold": OWED})


def test_a_copy_whose_maker_died_is_known_again() -> None:
    made = settle("k", record(hot=Copy("v1")), {"hot": info("v1"), "cold": info("c", 900, of="v1")}, ())
    assert made is not None
    assert made.version == "v1"
    assert states(made) == {"hot": GOOD, "cold": GOOD}


def test_what_vanished_is_gone_and_what_it_hid_shows_again() -> None:
    gone = settle("k", record(hot=Copy("v1")), {}, ())
    assert gone is not None
    assert gone.removed
    assert gone.copies == {}
    shown = settle("k", record(hot=Copy("v1"), cold=Copy("c", SHADOWED)), {"cold": info("c", 10)}, ())
    assert shown is not None
    assert (shown.version, states(shown)) == ("c", {"cold": GOOD})


def test_a_tier_that_gives_no_answer_keeps_what_it_has() -> None:
    known = record(hot=Copy("v1"), cold=Copy("c"))
    made = settle("k", known, {}, ("hot",))
    assert made is not None
    assert states(made) == {"hot": GOOD}
    assert not made.removed


def test_a_corrupt_copy_is_not_taken_for_nothing() -> None:
    known = record(hot=Copy("v1", CORRUPT))
    assert settle("k", known, {"hot": info("v1")}, ()) == known


def test_what_was_removed_stays_removed_until_somebody_writes_anew() -> None:
    tombstone = record("", hot=Copy("v1", OWED), cold=Copy("c", OWED))
    made = settle("k", tombstone, {"cold": info("c")}, ("hot",))
    assert made is not None
    assert made.removed
    again = settle("k", tombstone, {"hot": info("new", 5), "cold": info("c")}, ())
    assert again is not None
    assert again.version == "new"
    assert states(again) == {"hot": GOOD, "cold": OWED}


def test_a_directory_is_there_or_not() -> None:
    known = Record("d/", "v1", 0, 100, {"hot": Copy("v1")})
    assert agrees(known, {"hot": info("another time")}, ())
    both = settle("d/", known, {"hot": info("a"), "cold": info("b")}, ())
    assert states(both) == {"hot": GOOD, "cold": GOOD}
    assert both is not None
    assert both.version == "v1"
    gone = settle("d/", known, {}, ())
    assert gone is not None
    assert gone.removed
