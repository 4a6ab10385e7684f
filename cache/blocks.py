"""Which blocks of a partial file are missing, on their way, or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

BLOCK: Final = 128 << 10
"""Bytes of one block."""

MISSING: Final = 0
COMING: Final = 1
PRESENT: Final = 2


class BlockMap:
    """State of every block of one file, a byte each.

    Changed on the event loop only; read from any thread.

    Parameters
    ----------
    size : int
        Bytes of the file; the last block may be short.
    """

    __slots__ = ("_states", "present", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.present = 0
        self._states = bytearray(-(-size // BLOCK))

    @property
    def complete(self) -> bool:
        """All blocks are on disk."""
        return self.present == len(self._states)

    def has(self, start: int, end: int) -> bool:
        """Whether all bytes from ``start`` to ``end`` (exclusive) are on disk."""
        first, last = start // BLOCK, -(-end // BLOCK)
        return self._states.count(PRESENT, first, last) == last - first

    def state(self, offset: int) -> int:
        """State of the block that holds ``offset``."""
        return self._states[offset // BLOCK]

    def mark(self, start: int, end: int, state: int) -> None:
        """Set all blocks that ``start`` to ``end`` touch."""
        first, last = start // BLOCK, -(-end // BLOCK)
        self.present -= self._states.count(PRESENT, first, last)
        self._states[first:last] = bytes((state,)) * (last - first)
        if state == PRESENT:
            self.present += last - first

    def missing(self, start: int, end: int, largest: int) -> Iterator[tuple[int, int]]:
        """Byte ranges of missing blocks touching ``start`` to ``end``, adjacent ones joined up to ``largest``.

        No range crosses a multiple of ``largest``: stores keep large objects in aligned parts, and reading one part
        for two requests costs them twice. The last range ends with the file. Blocks may be marked while iterating.
        """
        states = self._states
        limit = min(-(-end // BLOCK), len(states))
        most = max(1, largest // BLOCK)
        first = states.find(MISSING, start // BLOCK, limit) if start < end else -1
        while first >= 0:
            stop = min((first // most + 1) * most, limit)
            last = first + 1
            while last < stop and states[last] == MISSING:
                last += 1
            yield first * BLOCK, min(last * BLOCK, self.size)
            first = states.find(MISSING, last, limit)
