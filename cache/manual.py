"""What is done to the cache by hand: objects are kept for good, and files are removed before their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import locks
from .eviction import Evictor
from .index import Index, Indexed
from .keys import home
from .opened import OpenFiles
from .tier import MemoryTier

_BATCH: Final = 64
"""Files removed at a time: the mutex of the cache directory is held meanwhile."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """What became of files that were to go.

    Attributes
    ----------
    files, bytes : int
        Removed.
    open, pinned : int
        Files that stay: some process has them open, or they are pinned.
    """

    files: int = 0
    bytes: int = 0
    open: int = 0
    pinned: int = 0

    def __add__(self, other: Evicted) -> Evicted:
        return Evicted(
            self.files + other.files, self.bytes + other.bytes, self.open + other.open, self.pinned + other.pinned
        )


class Manual:
    """Pins and removals of one cache directory, in effect for all its processes.

    A pin is of an object, whichever its version, and need not wait for its bytes to be here. Of several versions the
    one used last is kept.

    Parameters
    ----------
    index : Index
    evictor : Evictor
    opened : OpenFiles
    memory : MemoryTier
        Of this process; emptied by any removal.
    guard : Path
        The mutex of the cache directory.
    """

    def __init__(self, index: Index, evictor: Evictor, opened: OpenFiles, memory: MemoryTier, guard: Path) -> None:
        self._index = index
        self._evictor = evictor
        self._opened = opened
        self._memory = memory
        self._guard = guard

    def pin(self, store: str, keys: Sequence[str]) -> None:
        """Never evict these objects."""
        self._index.pin([home(store, key) for key in keys])

    def unpin(self, store: str, keys: Sequence[str]) -> None:
        """Undo `pin`."""
        self._index.unpin([home(store, key) for key in keys])

    def pinned(self, store: str, key: str) -> bool:
        """Whether an object is pinned."""
        return self._index.pinned(home(store, key))

    def evict(self, store: str, key: str) -> Evicted:
        """Remove all versions of one object."""
        return self._remove(self._index.versions(home(store, key)))

    def evict_below(self, store: str, prefix: str = "") -> Evicted:
        """Remove the objects of a store whose keys have a prefix."""
        return self._remove(self._index.below(store, prefix))

    def clear(self) -> Evicted:
        """Remove all."""
        return self._remove(self._index.everything())

    def _remove(self, files: Sequence[Indexed]) -> Evicted:
        self._opened.flush()
        self._memory.clear()
        going = [file for file in files if not file.pinned]
        removed, open_, freed = 0, 0, 0
        for start in range(0, len(going), _BATCH):
            with locks.mutex(self._guard):
                for file in going[start : start + _BATCH]:
                    size = self._evictor.take(file.place, file.size)
                    removed += size is not None
                    open_ += size is None
                    freed += size or 0
        return Evicted(removed, freed, open_, len(files) - len(going))
