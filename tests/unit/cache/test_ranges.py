"""Which requests many ranges of one object become."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fsdriver.cache.blocks import GRAIN
from fsdriver.cache.pace import GAP
from fsdriver.cache.ranges import joined
from fsdriver.cache.readahead import LARGEST_REQUEST

MIB = 1 << 20
SIZE = 64 * MIB


def test_neighbours_are_one_request() -> None:
    assert joined([(0, MIB), (MIB, 2 * MIB)], SIZE, GAP) == [(0, 2 * MIB)]
    assert joined([(MIB, 2 * MIB), (0, MIB), (MIB // 2, MIB), (5, 5)], SIZE, GAP) == [(0, 2 * MIB)]
    assert joined([(0, MIB), (MIB + 100_000, 2 * MIB)], SIZE, GAP) == [(0, 2 * MIB)]
    assert joined([(10, 20)], SIZE, GAP) == [(0, GRAIN)]
    assert joined([(SIZE - 5, SIZE)], SIZE - 3, GAP) == [(SIZE - GRAIN, SIZE - 3)]
    assert joined([], SIZE, GAP) == []


def test_a_wide_gap_stays_open() -> None:
    wide = [(0, 2 * MIB), (2 * MIB + GAP + GRAIN, 5 * MIB)]
    assert joined(wide, SIZE, GAP) == wide
    assert joined(wide, SIZE, 2 * GAP) == [(0, 5 * MIB)]
    assert joined([(0, MIB), (MIB + GRAIN, 2 * MIB)], SIZE, 0) == [(0, MIB), (MIB + GRAIN, 2 * MIB)]


def test_the_narrowest_gaps_are_closed_first() -> None:
    ranges = [
        (0, MIB),
        (MIB + 20 * GRAIN, 2 * MIB),
        (2 * MIB + 8 * GRAIN, 3 * MIB),
        (3 * MIB + GRAIN, 3 * MIB + 2 * GRAIN),
    ]
    assert joined(ranges, SIZE, GAP) == [(0, 3 * MIB + 2 * GRAIN)]
    assert joined([*ranges[1:3], (4 * MIB, 4 * MIB + GRAIN)], SIZE, GAP) == [
        (MIB + 20 * GRAIN, 3 * MIB),
        (4 * MIB, 4 * MIB + GRAIN),
    ]


def test_requests_end_where_parts_do() -> None:
    ranges = [(7 * MIB, LARGEST_REQUEST - GRAIN), (LARGEST_REQUEST + GRAIN, 9 * MIB)]
    assert joined(ranges, SIZE, GAP) == ranges


@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 2 * MIB)), max_size=40))
def test_all_is_fetched_and_little_more(reads: list[tuple[int, int]]) -> None:
    ranges = [(start, min(start + length, SIZE)) for start, length in reads]
    found = joined(ranges, SIZE, GAP)
    assert all(any(first <= start and end <= last for first, last in found) for start, end in ranges if start < end)
    assert all(before[1] < after[0] for before, after in pairwise(found))
    asked = {grain for start, end in ranges if start < end for grain in range(start // GRAIN, -(-end // GRAIN))}
    assert sum(end - start for start, end in found) <= 1.5 * GRAIN * len(asked)
