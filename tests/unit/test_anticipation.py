"""When a directory is listed because its names are asked for one by one."""

from __future__ import annotations

from fsdriver.metadata.anticipation import ENOUGH, PAGES, SOON, Anticipation
from tests.clock import Clock


def ask(anticipation: Anticipation, directory: str, times: int) -> list[int]:
    return [anticipation.note(directory) for _ in range(times)]


def test_many_names_of_one_directory_list_it_first_if_it_is_small_then_if_it_is_not_too_large() -> None:
    pages = [0] * (SOON - 1) + [1] + [0] * (ENOUGH - SOON - 1) + [PAGES, 0]
    assert ask(Anticipation(10.0, Clock()), "a", ENOUGH + 1) == pages


def test_names_of_many_directories_list_none() -> None:
    anticipation = Anticipation(10.0, Clock())
    assert not any(anticipation.note(str(number)) for _ in range(SOON - 1) for number in range(50))


def test_names_asked_for_now_and_then_list_nothing() -> None:
    clock = Clock()
    anticipation = Anticipation(10.0, clock)
    for _ in range(3 * ENOUGH):
        assert not anticipation.note("a")
        clock.now += 11.0


def test_a_large_directory_is_not_tried_again_for_an_hour() -> None:
    clock = Clock()
    anticipation = Anticipation(10.0, clock)
    anticipation.give_up("a")
    clock.now += 3599.0
    assert not any(ask(anticipation, "a", 3 * ENOUGH))
    clock.now += 1.0
    assert any(ask(anticipation, "a", ENOUGH))


def test_no_more_directories_are_watched_than_is_worth_it() -> None:
    anticipation = Anticipation(10.0, Clock())
    for number in range(5000):
        anticipation.note(str(number))
        anticipation.give_up(f"large {number}")
    assert len(anticipation._seen) == len(anticipation._large) == 1024


def test_without_a_ttl_a_listing_is_worth_nothing() -> None:
    assert not any(ask(Anticipation(0.0, Clock()), "a", 3 * ENOUGH))
