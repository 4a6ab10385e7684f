"""Which directories of a route have an attribute object: one LIST tells it for all of them.

Where there is none, none is asked for: a bucket that other tools filled costs no request for attributes.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Collection

from fsdriver import names
from fsdriver.cache import Epochs


class Described:
    """The directories with attribute objects, as the store listed them and as this host has made them since.

    Parameters
    ----------
    fetch : callable
        Escaped names of all described directories, or None where they are too many to be kept.
    epochs : Epochs
        Shared with all processes of this uid: whoever puts the first attribute object of a directory tells the others.
    epoch_name : str
    ttl : float
        Seconds; the answer is used for half of it, so that what is built on it lives at least the other half.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Collection[str] | None]],
        epochs: Epochs,
        epoch_name: str,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._epochs = epochs
        self._epoch_name = epoch_name
        self._trust = ttl / 2
        self._clock = clock
        self._lock = threading.Lock()
        self._names: set[str] | None = None
        self._epoch = 0
        self._asked = float("-inf")
        self._forgotten = 0

    @property
    def fresh(self) -> bool:
        """`lacks` can tell something, or nothing can be learned for now."""
        return self._clock() - self._asked < self._trust and self._epoch == self._epochs.value(self._epoch_name)

    @property
    def known(self) -> bool:
        """`lacks` can tell something."""
        return self._names is not None and self.fresh

    def lacks(self, directory: str) -> bool:
        """The store is known to have no attribute object of this directory. What the journal owes is looked up before."""
        known = self._names
        return known is not None and self.fresh and names.escape_directory(directory) not in known

    @property
    def asked(self) -> float:
        """When the store was asked: what `lacks` says is as old."""
        return self._asked

    async def load(self) -> None:
        """Ask the store, unless the last answer is fresh."""
        for _ in range(3):
            if self.fresh or not self._trust:
                return
            asked, epoch, forgotten = self._clock(), self._epochs.value(self._epoch_name), self._forgotten
            found = await self._fetch()
            with self._lock:
                if epoch == self._epochs.value(self._epoch_name) and forgotten == self._forgotten:
                    self._names = None if found is None else set(found)
                    self._asked, self._epoch = asked, epoch

    def created(self, directory: str) -> None:
        """The first attribute object of a directory was put by this process, and the journal still has its records."""
        with self._lock:
            current = self._epoch == self._epochs.value(self._epoch_name)
            epoch = self._epochs.bump(self._epoch_name)
            if current and self._names is not None:
                self._names.add(names.escape_directory(directory))
                self._epoch = epoch

    def forget(self) -> None:
        """Ask again before the next answer; one that is under way is too old."""
        with self._lock:
            self._forgotten += 1
            self._asked = float("-inf")
