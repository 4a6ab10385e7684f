"""The fills under way in one process: one for each object, shared by its readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from .files import SealedFile
from .fill import Fill
from .keys import ObjectKey
from .opened import OpenFiles


class Fills:
    """A table of fills, and who reads them. Its lock is never held while anything is waited for.

    Parameters
    ----------
    opened : OpenFiles
    """

    def __init__(self, opened: OpenFiles) -> None:
        self._opened = opened
        self._lock = threading.Lock()
        self._fills: dict[str, Fill] = {}

    def __len__(self) -> int:
        return len(self._fills)

    def unfinished(self, store: str) -> Sequence[ObjectKey]:
        """What readers have open of a store and is not all here yet."""
        if not self._fills:
            return ()
        with self._lock:
            return [fill.key for fill in self._fills.values() if fill.readers and fill.key.store == store]

    def join(self, key: ObjectKey) -> Fill | None:
        """Become one more reader of a fill that is read; None if there is none."""
        with self._lock:
            fill = self._fills.get(key.place)
            if fill is None or not fill.readers:
                return None
            fill.readers += 1
            return fill

    def attach(self, key: ObjectKey, begin: Callable[[], Fill]) -> SealedFile | Fill:
        """Become one more reader of the object's fill, which begins now if need be, or of the file that it has become."""
        with self._lock:
            fill = self._fills.get(key.place)
            if fill is not None:
                fill.readers += 1
                return fill
        # A fill may have ended since the file was looked for: it is not fetched again for that.
        sealed = self._opened.again(key)
        if sealed is not None:
            return sealed
        with self._lock:
            fill = self._fills.get(key.place)
            if fill is None:
                fill = self._fills[key.place] = begin()
            fill.readers += 1
            return fill

    def release(self, fill: Fill) -> None:
        """One reader less."""
        with self._lock:
            fill.readers -= 1
            if fill.readers > 0:
                return
            settled = fill.settled
        if settled:
            self._let_go(fill)
        else:
            fill.abandon()

    def placed(self, fill: Fill) -> bool:
        """The file of a fill is in its place: open it for those who read it; False if it has gone again."""
        with self._lock:
            if not fill.readers:
                self._settle(fill)
                return True
        sealed = self._opened.again(fill.key)
        if sealed is None:
            return False
        fill.sealed = sealed
        self.finished(fill)
        return True

    def finished(self, fill: Fill) -> None:
        """A fill has its sealed file."""
        with self._lock:
            self._settle(fill)
            unused = fill.readers == 0
        if unused:
            self._let_go(fill)

    def retired(self, fill: Fill) -> bool:
        """Give up a fill that nobody reads; False if somebody came meanwhile."""
        with self._lock:
            if fill.readers > 0:
                return False
            if self._fills.get(fill.key.place) is fill:
                del self._fills[fill.key.place]
            return True

    def disk_failed(self, key: ObjectKey, error: OSError) -> None:
        """The fill of an object goes on without the disk."""
        with self._lock:
            if (fill := self._fills.get(key.place)) is not None:
                fill.disk_error = error

    def take_all(self) -> list[Fill]:
        """All fills; none is under way any more."""
        with self._lock:
            fills = list(self._fills.values())
            self._fills.clear()
        return fills

    def after_fork(self) -> None:
        """In a forked child: fills are the parent's."""
        for fill in self._fills.values():
            fill.after_fork()
        self._lock = threading.Lock()
        self._fills = {}

    def _settle(self, fill: Fill) -> None:
        fill.settled = True
        if self._fills.get(fill.key.place) is fill:
            del self._fills[fill.key.place]

    def _let_go(self, fill: Fill) -> None:
        """Nobody reads a finished fill: its file, and so the shared lock on it, closes now."""
        sealed = fill.let_go()
        if sealed is not None:
            self._opened.release(sealed)
