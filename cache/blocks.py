"""Which parts of a partial file are missing, on their way, or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

BLOCK: Final = 128 << 10
"""Bytes of the smallest request: less costs a store as much."""
GRAIN: Final = 32 << 10
"""Bytes that are noted as missing or present together. Reads begin anywhere: with grains as large as the reads, a read
would fetch twice what it asks for."""

MISSING: Final = 0
COMING: Final = 1
PRESENT: Final = 2


class BlockMap:
    """State of every grain of one file, a byte each.

    Changed on the event loop only; read from any thread.

    Parameters
    ----------
    size : int
        Bytes of the file; the last grain may be short.
    """

    __slots__ = ("_states", "present", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.present = 0
        self._states = bytearray(-(-size // GRAIN))

    @property
    def complete(self) -> bool:
        """All grains are on disk."""
        return self.present == len(self._states)

    def has(self, start: int, end: int) -> bool:
        """Whether all bytes from ``start`` to ``end`` (exclusive) are on disk."""
        first, last = start // GRAIN, -(-end // GRAIN)
        return self._states.count(PRESENT, first, last) == last - first

    def state(self, offset: int) -> int:
        """State of the grain that holds ``offset``."""
        return self._states[offset // GRAIN]

    def present_until(self, offset: int, end: int) -> int:
        """The first byte from ``offset`` on that is not on disk, at most ``end``."""
        first, last = offset // GRAIN, -(-end // GRAIN)
        found = [at for state in (MISSING, COMING) if (at := self._states.find(state, first, last)) >= 0]
        return min(end, *(at * GRAIN for at in found)) if found else end

    def mark(self, start: int, end: int, state: int) -> None:
        """Set all grains that ``start`` to ``end`` touch."""
        first, last = start // GRAIN, -(-end // GRAIN)
        self.present -= self._states.count(PRESENT, first, last)
        self._states[first:last] = bytes((state,)) * (last - first)
        if state == PRESENT:
            self.present += last - first

    def missing(self, start: int, end: int, largest: int) -> Iterator[tuple[int, int]]:
        """Byte ranges of missing grains touching ``start`` to ``end``, adjacent ones joined up to ``largest``.

        No range crosses a multiple of ``largest``: stores keep large objects in aligned parts, and reading one part
        for two requests costs them twice. The last range ends with the file. Grains may be marked while iterating.
        """
        states = self._states
        limit = min(-(-end // GRAIN), len(states))
        most = max(1, largest // GRAIN)
        first = states.find(MISSING, start // GRAIN, limit) if start < end else -1
        while first >= 0:
            stop = min((first // most + 1) * most, limit)
            last = first + 1
            while last < stop and states[last] == MISSING:
                last += 1
            yield first * GRAIN, min(last * GRAIN, self.size)
            first = states.find(MISSING, last, limit)
