"""Noticing that the names of a directory are asked for one by one, as a shuffled pass over many files does.

Such a name costs three requests, a page of a LIST tells a thousand. The listing is fetched beside the lookups, none of which
waits for it; the names asked for after it has arrived cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fsdriver.cache import TTLCache

SOON: Final = 4
"""Names found one by one, each within the TTL of the one before, after which the directory is listed if it is one page."""
ENOUGH: Final = 16
"""As `SOON`, for a directory of up to `PAGES`."""
PAGES: Final = 10
"""A directory of more pages (1,000 entries each) is not listed for this."""
_WATCHED: Final = 1024
_LARGE_SECONDS: Final = 3600.0
"""A directory that has proved to be large is taken for that so long."""


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
        self._seen: TTLCache[int] = TTLCache(_WATCHED, ttl, clock=clock)
        self._large: TTLCache[bool] = TTLCache(_WATCHED, _LARGE_SECONDS, clock=clock)

    def note(self, directory: str) -> int:
        """A name was found by asking the store for it alone.

        Returns
        -------
        int
            List the directory now if it has up to so many pages; 0: don't.
        """
        if not self._ttl or self._large.get(directory):
            return 0
        count = (self._seen.pop(directory) or 0) + 1
        if count >= ENOUGH:
            return PAGES
        self._seen.put(directory, count)
        return 1 if count == SOON else 0

    def pages(self, directory: str, names: int) -> int:
        """Of how many pages a listing may be that is fetched because so many names are asked for at once; 0: of none."""
        if not self._ttl or self._large.get(directory) or names < SOON:
            return 0
        return PAGES if names >= ENOUGH else 1

    def give_up(self, directory: str) -> None:
        """The directory has proved to be large."""
        self._large.put(directory, True)
