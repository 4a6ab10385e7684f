"""Open files keep their bytes: what this process is about to take from the store is fetched first for those who still read it.

A file that was opened and is not wholly in the cache has its other bytes on the store only. Whoever carries a removal or an
overwrite out asks here before. What another process or host takes from the store is not asked for: reading fails with ESTALE
there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from fsdriver.cache import DiskCache, ObjectKey, Reader
from fsdriver.errors import NoSpace, NotFound, Stale

log = logging.getLogger(__name__)

REMEMBERED_MOVES: Final = 100_000
"""Renames carried out whose new place is still known to those who read from the old one."""
FETCHED_UNASKED: Final = 64 << 20
"""Bytes of a removed file that are fetched at once for its readers; removing a larger one waits for their last close."""
LOOK: Final = 0.5
"""Seconds between two looks whether those for whom something is fetched are still there."""


class Keeper:
    """The objects of one store that open files of this process still need.

    Parameters
    ----------
    store : str
        Identity of the backend.
    cache : DiskCache

    Attributes
    ----------
    kept : int
        Files that were fetched whole for their readers.
    cut : int
        Files whose readers lost them: the cache could not hold them.
    """

    def __init__(self, store: str, cache: DiskCache) -> None:
        self._store = store
        self._cache = cache
        self._moved: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()
        self.kept = 0
        self.cut = 0

    def moved(self, source: str, version: str, target: str, new_version: str) -> None:
        """A copy was made whose source goes next: who reads the source finds its bytes at ``target``."""
        self._moved[source, version] = target, new_version
        if len(self._moved) > REMEMBERED_MOVES:
            self._moved.popitem(last=False)

    def next_place(self, key: str, version: str) -> tuple[str, str] | None:
        """Key and version of the copy that was made last of a version, before it went."""
        return self._moved.get((key, version))

    def needed(self, key: str) -> Sequence[ObjectKey]:
        """What open files still read from a key, and can read nowhere else."""
        return [one for one in self._cache.unfinished(self._store) if self._last_place(one) == key]

    def _last_place(self, object_key: ObjectKey) -> str:
        place, seen = (object_key.key, object_key.version), set[tuple[str, str]]()
        while (after := self._moved.get(place)) is not None and after not in seen:
            seen.add(after)
            place = after
        return place[0]

    async def keep(self, key: str) -> bool:
        """Fetch into the cache what open files need of the object at a key; False if the cache cannot hold it.

        Raises
        ------
        BackendError
            The store failed; they need it still.
        """
        whole = True
        for one in self.needed(key):
            reader = self._cache.join(one)
            if reader is None:
                continue
            with reader:
                try:
                    await _complete(reader)
                except NoSpace:
                    whole = False
                except (NotFound, Stale) as error:
                    log.debug("it has gone already: %s", error)
                else:
                    self.kept += 1
        return whole

    def give_up(self, key: str) -> None:
        """The object goes though open files need it."""
        self.cut += 1
        log.warning(
            "%s is replaced while an open file still reads the version before, which the cache cannot hold: "
            "reading on fails with ESTALE; raise cache.size",
            key,
        )


async def _complete(reader: Reader) -> None:
    """Fetch the rest of a file for as long as somebody else reads it."""
    fetching = asyncio.get_running_loop().create_task(reader.wait_complete())
    try:
        while not fetching.done() and not reader.alone:
            await asyncio.wait([fetching], timeout=LOOK)
        if fetching.done():
            fetching.result()
    finally:
        fetching.cancel()
