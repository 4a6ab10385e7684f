"""Looks at the journal that find nothing take a small part of the time, however many rows there are."""

from __future__ import annotations

import pytest

from fsdriver.writeback.waiting import LOOKING, LOOKING_AWAITED, Looks
from tests.clock import Clock


@pytest.mark.parametrize(("awaited", "share"), [(False, LOOKING), (True, LOOKING_AWAITED)])
def test_the_pause_follows_from_how_long_a_look_took(awaited: bool, share: float) -> None:
    clock = Clock()
    looks = Looks(10.0, clock)
    assert looks.pause == 0.0
    with looks.look(awaited=awaited):
        clock.now += 0.05
    assert looks.pause == pytest.approx(0.05 / share)
    clock.now += 0.05 / share
    assert looks.pause == 0.0


def test_the_pause_is_bounded_and_can_be_ended() -> None:
    clock = Clock()
    looks = Looks(1.0, clock)
    with looks.look():
        clock.now += 30.0
    assert looks.pause == 1.0
    looks.again()
    assert looks.pause == 0.0
