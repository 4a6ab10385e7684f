"""What goes wrong on the disk of one cache: counted, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from .fills import Fills
from .keys import ObjectKey
from .stats import Counts

_log = logging.getLogger("fsdriver.cache")


class Troubles:
    """See the module.

    Parameters
    ----------
    directory : Path
        Of the cache, for messages.
    counts : Counts
        ``uncached`` and ``corrupt`` are counted here.
    fills : callable
        Gives the fills under way.
    discard : callable
        Removes a file.
    """

    def __init__(
        self, directory: Path, counts: Counts, fills: Callable[[], Fills], discard: Callable[[ObjectKey], None]
    ) -> None:
        self._directory = directory
        self._counts = counts
        self._fills = fills
        self._discard = discard
        self._warned = False

    def disk_failed(self, key: ObjectKey, error: OSError) -> None:
        """A fill goes on without the disk."""
        self._counts.uncached += 1
        self._fills().disk_failed(key, error)
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s: the cache disk cannot be written (%s); reading goes on without caching. Free space on %s or move"
                " the cache with FSDRIVER_CACHE_DIR. Later failures are only counted",
                key.label,
                error.strerror or error,
                self._directory,
            )

    def corrupt(self, key: ObjectKey) -> None:
        """What is on disk of an object is not what was written there."""
        self._counts.corrupt += 1
        _log.warning("%s: bytes on the cache disk have changed; they are fetched anew. Check the disk", key.label)

    def spoiled(self, key: ObjectKey) -> None:
        """A sealed file is not what was encrypted: it goes."""
        self.corrupt(key)
        self._discard(key)
