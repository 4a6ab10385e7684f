"""How processes of one user tell each other that cached metadata is out of date: counters in shared memory.

Each name hashes to one 8-byte slot of a file mapped by all. Who changes a name stores a fresh value; who cached it
compares. Two names on one slot cost a needless refresh, never a missed one.
"""

from __future__ import annotations

import itertools
import mmap
import os
import time
from pathlib import Path
from typing import Final

import xxhash

_MASK: Final = (1 << 64) - 1
_SPREAD: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: neighbouring inputs give distant products (Fibonacci hashing, Knuth TAOCP 6.4)."""


class Epochs:
    """The counters of one file; survives fork, needs no lock.

    Parameters
    ----------
    path : Path
        Made with mode 0600 when missing, and enlarged when shorter.
    slots : int
        Counters; the same number in all processes.

    Raises
    ------
    OSError
        The file cannot be made: its disk is full, for one.
    """

    def __init__(self, path: Path, slots: int = 65536) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # All blocks at once: a store through the mapping that finds the disk full would end the process (SIGBUS).
            os.posix_fallocate(descriptor, 0, slots * 8)
            self._memory = mmap.mmap(descriptor, slots * 8)
        finally:
            os.close(descriptor)
        self._values = memoryview(self._memory).cast("Q")
        self._slots = slots
        self._bumps = itertools.count(1)

    def slot(self, name: str) -> int:
        """Where the counter of a name is: who looks at it again and again need not work that out each time."""
        return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape")) % self._slots

    def value(self, name: str) -> int:
        """What the slot of ``name`` holds; equal values mean that nobody called `bump` in between."""
        return self._values[self.slot(name)]

    def value_at(self, slot: int) -> int:
        """As `value`."""
        return self._values[slot]

    def bump(self, name: str) -> int:
        """Give the slot of ``name`` a value it never had: time, process and call number mixed into 64 bits; returns it."""
        return self.bump_at(self.slot(name))

    def bump_at(self, slot: int) -> int:
        """As `bump`."""
        number = time.time_ns() ^ (os.getpid() << 40) ^ (next(self._bumps) << 20)
        # An aligned 8-byte store: readers see the old or the new value. Multiplication by an odd number is a bijection.
        value = self._values[slot] = (number * _SPREAD) & _MASK
        return value

    def snapshot(self) -> bytes:
        """All counters as they are now, for `moved_since`."""
        return bytes(self._values)

    def moved_since(self, snapshot: bytes, name: str) -> bool:
        """Somebody called `bump` for ``name`` (or for another one of its slot) after the snapshot was taken."""
        slot = self.slot(name)
        return snapshot[slot * 8 : slot * 8 + 8] != self._values[slot : slot + 1].tobytes()

    def close(self) -> None:
        """Unmap; the file stays."""
        self._values.release()
        self._memory.close()
