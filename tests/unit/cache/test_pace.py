"""How many requests a store is asked at a time, and which gaps are worth fetching."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fsdriver.cache.pace import FEWEST, GAP, MOST, NARROWEST_GAP, WIDEST_GAP, Pace

MIB = 1 << 20

Rate = Callable[[int], float]
"""Bytes a second of all connections together, by their number."""


def stream(pace: Pace, size: int, rate: Rate) -> list[int]:
    """A reader that always waits for bytes; the number of requests at a time for each 32 MiB of it."""
    widths = []
    now = 0.0
    for _ in range(size // (32 * MIB)):
        widths.append(pace.width)
        for _ in range(32 * MIB // pace.largest_request):
            request = pace.largest_request
            now += request / rate(pace.width)
            pace.arrived(request, now)
    return widths


def test_more_connections_where_each_has_its_own_rate() -> None:
    pace = Pace("s3")
    assert stream(pace, 1 << 30, lambda width: width * 80e6)[-1] == MOST
    assert pace.largest_request == 2 * MIB


def test_few_connections_where_all_share_one_rate() -> None:
    widths = stream(Pace("s3"), 16 << 30, lambda width: 1e9 - width * 1e6)
    assert widths.count(FEWEST) > 0.9 * len(widths)


def test_as_many_as_are_of_use() -> None:
    widths = stream(Pace("s3"), 16 << 30, lambda width: min(width, 8) * 80e6)
    assert widths.count(8) > 0.9 * len(widths)


def test_the_number_falls_again_when_the_network_is_shared() -> None:
    pace = Pace("s3")
    stream(pace, 1 << 30, lambda width: width * 80e6)
    widths = stream(pace, 32 << 30, lambda width: 300e6)
    assert widths[0] == MOST
    assert widths.count(FEWEST) > 0.8 * len(widths)


def test_pauses_of_a_reader_say_nothing_of_the_store() -> None:
    pace = Pace("s3")
    now = 0.0
    for number in range(2000):
        now += 0.01 if number % 10 else 5.0
        pace.arrived(8 * MIB, now)
    assert pace.width == FEWEST


@pytest.mark.parametrize(
    ("latency", "rate", "gap"),
    [(0.02, 50e6, 1_000_000), (0.0001, 50e6, NARROWEST_GAP), (0.5, 200e6, WIDEST_GAP)],
)
def test_a_gap_is_what_comes_in_the_time_of_one_more_request(latency: float, rate: float, gap: int) -> None:
    pace = Pace("s3")
    assert pace.gap == GAP
    for _ in range(50):
        pace.answered(1000, latency)
        pace.answered(8 * MIB, latency + 8 * MIB / rate)
    assert abs(pace.gap - gap) <= 1
