"""One route: a path prefix of the tree, the store behind it, its policy, and the operations every face calls.

Paths are relative to the route, without leading or trailing ``/``; ``""`` is the route's root. They are *names* (C3), never
keys. Coroutines follow `fsdriver.runtime`: warm ones finish in the calling thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from fsdriver.entry import Changes, Entry, Kind


class Route:
    """See the module. Constructed by `fsdriver.engine.Engine`, shared by all faces of the process."""

    path: str
    """Where the route hangs in the tree, e.g. ``"/data"``; ``"/"`` for a URL mounted alone."""

    # -- names -------------------------------------------------------------------------------------------------------

    def cached(self, path: str) -> Entry | None:
        """The entry if memory holds it and it is younger than the route's ttl; never blocks, never asks the store."""
        raise NotImplementedError

    async def stat(self, path: str, *, fresh: bool = False) -> Entry:
        """Attributes of one path; ``fresh`` bypasses the time-to-live caches. Raises NotFound."""
        raise NotImplementedError

    async def list(self, path: str, *, fresh: bool = False) -> Mapping[str, Entry]:
        """Entries of a directory by name, not sorted; one LIST and one GET. Raises NotFound, NotDirectory."""
        raise NotImplementedError

    def find(self, path: str) -> AsyncIterator[Mapping[str, Entry]]:
        """All files below a directory, recursively, in batches keyed by route path: flat LISTs of 1,000 keys."""
        raise NotImplementedError

    # -- bytes -------------------------------------------------------------------------------------------------------

    async def open(self, path: str, entry: Entry | None = None):  # -> fsdriver.cache Reader
        """A reader of one version of a file: complete local file, or a partial one that fetches what is asked.

        `Reader.fileno()` is a descriptor of a complete local file or None; `Reader.read(offset, size)` is a coroutine in
        every case; `Reader.complete` tells. Close it. Raises NotFound, Stale.
        """
        raise NotImplementedError

    async def read(self, path: str, start: int = 0, end: int | None = None) -> memoryview:
        """Bytes of a file, from the cache if it has them."""
        raise NotImplementedError

    # -- changes -----------------------------------------------------------------------------------------------------
    # Every change is visible to all faces when the coroutine returns. ``durable`` None follows the route's ``write``
    # policy: "through" returns when the tiers have it, "back" when the journal has it.

    async def publish(
        self, path: str, source: Path | bytes, *, base: str | None = None, entry: Entry | None = None
    ) -> Entry:
        """Make ``source`` the content of ``path``, atomically. A Path (in staging) is consumed: it becomes the cache file.

        ``base``: None replaces whatever is there; ABSENT ("") demands a new name (AlreadyExists); else the version
        expected there (Stale). ``entry`` supplies mode, owner, times and xattrs; None keeps those of the existing file
        or takes the route's defaults.
        """
        raise NotImplementedError

    async def set_attributes(self, path: str, changes: Changes) -> Entry: ...
    async def mkdir(self, path: str, changes: Changes = Changes()) -> Entry: ...
    async def rmdir(self, path: str) -> None: ...
    async def remove(self, path: str) -> None: ...
    async def rename(self, source: str, target: str, *, replace: bool = True, exchange: bool = False) -> None: ...
    async def copy(self, source: str, target: str) -> Entry: ...
    async def make(self, path: str, kind: Kind, changes: Changes, *, target: str = "", rdev: int = 0) -> Entry: ...
    async def link(self, source: str, target: str) -> Entry: ...
    async def sync(self, path: str = "") -> None:
        """Wait until everything pending at or below ``path`` is in the tiers; raises the first failure."""
        raise NotImplementedError

    # -- files being written in place (the mount) ----------------------------------------------------------------------

    def new_file(self):  # -> fsdriver.staging.StagedFile
        """An empty staging file for a name that `create` will give it."""
        raise NotImplementedError

    async def stage(self, path: str, entry: Entry, reader):  # -> StagedFile
        """A staging file that begins with the present bytes of ``path``, to be written in place.

        ``reader`` is the reader this process already has open on that version, or None. A sealed cache file is un-sealed
        (renamed into staging, no copy): descriptors and kernel backing ids of ``reader`` then are of the same file
        (``StagedFile.inherited``). Raises Stale when another process reads that cache file and ``reader`` is open: the
        caller makes the kernel look the name up again.
        """
        raise NotImplementedError

    async def create(self, path: str, staged, changes: Changes, *, exclusive: bool) -> Entry:
        """Make a new, empty, open file visible under ``path`` to this process; the first `commit` tells the others."""
        raise NotImplementedError

    async def commit(self, path: str, staged) -> Entry:
        """Close-to-open point (FLUSH): journal what changed since the last commit; in "through" mode wait for the tiers."""
        raise NotImplementedError

    async def fsync(self, path: str, staged) -> None:
        """Bytes and intent survive power loss (``fsync = "remote"``: are in the tiers)."""
        raise NotImplementedError

    async def release(self, path: str | None, staged) -> None:
        """Last close: commit late stores (mmap), close the descriptor, let the uploader seal. ``path`` None: unlinked, drop."""
        raise NotImplementedError
