"""Noticing that the names of a directory are asked for one by one, as a shuffled pass over many files does.

Such a name costs three requests, a page of a LIST tells a thousand. The listing is fetched beside the lookups, none of which
waits for it; the names asked for after it has arrived cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SOON: Final = 4
"""Names found one by one, each within the TTL of the one before, after which the directory is listed if it is one page."""
ENOUGH: Final = 16
"""As `SOON`, for a directory of up to `PAGES`."""
PAGES: Final = 10
"""A directory of more pages (1,000 entries each) is not listed for this."""
_WATCHED: Final = 1024


class TooManyPages(Exception):
    """A directory is too large to be listed unasked: no error, it ends what nobody asked for."""


class Anticipation:
    """Counts lookups by directory. Used on the event loop only.

    Parameters
    ----------
    ttl : float
        Seconds that a listing is worth something; 0 switches this off.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._large: set[str] = set()

    def note(self, directory: str) -> int:
        """A name was found by asking the store for it alone.

        Returns
        -------
        int
            List the directory now if it has up to so many pages; 0: don't.
        """
        now = self._clock()
        count, last = self._seen.pop(directory, (0, now))
        if not self._ttl or directory in self._large:
            return 0
        count = count + 1 if now - last <= self._ttl else 1
        if count >= ENOUGH:
            return PAGES
        self._seen[directory] = count, now
        if len(self._seen) > _WATCHED:
            del self._seen[next(iter(self._seen))]
        return 1 if count == SOON else 0

    def give_up(self, directory: str) -> None:
        """The directory has proved to be large."""
        if len(self._large) >= _WATCHED:
            self._large.clear()
        self._large.add(directory)
