"""Who fetches a small object: one process, for all that share the cache directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import xxhash

from . import locks
from .files import LocalFile

_SLOTS: Final = (1 << 62) - 1


class Claims:
    """Locks on the bytes of one empty file, a byte for each object; two on one byte only wait for each other.

    Parameters
    ----------
    path : Path
        Made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: LocalFile | None = None

    def take(self, place: str) -> bool:
        """Become the one process that fetches the object of a place; False if another one does.

        True, too, where that cannot be settled: then two may fetch it.
        """
        try:
            file = self._file
            if file is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._file = file = LocalFile(os.open(self._path, flags, 0o600))
            return locks.claim(file.descriptor, _slot(place), 1)
        except OSError:
            return True

    def drop(self, place: str) -> None:
        """Undo `take`."""
        file = self._file
        if file is not None:
            locks.unclaim(file.descriptor, _slot(place), 1)

    def after_fork(self) -> None:
        """In a forked child: the parent's claims must end with the parent."""
        self._file = None


def _slot(place: str) -> int:
    return xxhash.xxh3_64_intdigest(place.encode()) & _SLOTS
