"""Checksums of what lies on the disk of the cache, grain by grain."""

from __future__ import annotations

import xxhash

from .blocks import GRAIN


def checksums(data: memoryview, unit: int = GRAIN) -> bytes:
    """XXH3-64 of each grain, 8 bytes each; ``unit`` is what a grain takes on the disk."""
    return b"".join(xxhash.xxh3_64_digest(data[at : at + unit]) for at in range(0, len(data), unit))


class Checksum:
    """Of all bytes of a file, 16 bytes: XXH3-128 of the checksums of its grains."""

    def __init__(self, data: memoryview | None = None, unit: int = GRAIN) -> None:
        self._sums = xxhash.xxh3_128()
        self._unit = unit
        if data is not None:
            self.add(data)

    def add(self, data: memoryview) -> None:
        """The next bytes: whole grains, but for the last call."""
        self._sums.update(checksums(data, self._unit))

    def digest(self) -> bytes:
        """Of all that was added."""
        return self._sums.digest()
