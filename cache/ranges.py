"""Which bytes are fetched for many ranges of one object: neighbours in one request, each byte once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from .blocks import GRAIN
from .readahead import LARGEST_REQUEST

_WASTE: Final = 2
"""Bytes asked for each byte fetched between them, at least."""


def joined(ranges: Iterable[tuple[int, int]], size: int, gap: int) -> list[tuple[int, int]]:
    """Ranges to fetch for those asked for: whole grains, in order, none touching another.

    The narrowest gaps are closed first, until what lies in them is half of what is asked for. One that a multiple of the
    largest request lies in stays open: requests end there.

    Parameters
    ----------
    ranges : iterable of (int, int)
        Start and end (exclusive), bytes; in any order, overlapping or not, empty ones too.
    size : int
        Bytes of the object.
    gap : int
        Widest gap that is worth closing, bytes.
    """
    spans: list[list[int]] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        first, last = start // GRAIN * GRAIN, min(-(-end // GRAIN) * GRAIN, size)
        if spans and first <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], last)
        else:
            spans.append([first, last])
    allowed = sum(end - start for start, end in spans) // _WASTE
    gaps = sorted((after[0] - before[1], number) for number, (before, after) in enumerate(pairwise(spans)))
    closed: set[int] = set()
    for width, number in gaps:
        if width > min(gap, allowed):
            break
        if spans[number][1] // LARGEST_REQUEST == spans[number + 1][0] // LARGEST_REQUEST:
            closed.add(number + 1)
            allowed -= width
    found: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(spans):
        found.append((found.pop()[0], end) if number in closed else (start, end))
    return found
