"""Hints to the cache: warm, prefetch, evict, pin, unpin; comparing with the store, and moving to another tier."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import Any, Final

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from fsdriver.entry import Entry, Kind
from fsdriver.errors import IsDirectory
from fsdriver.fsspec_face.base import from_any_loop, synchronous
from fsdriver.fsspec_face.listing import Listing
from fsdriver.fsspec_face.targets import Target
from fsdriver.routes import caching, tiering, verifying
from fsdriver.routes.caching import Eviction
from fsdriver.routes.prefetching import Place, Prefetched
from fsdriver.routes.verifying import Verified
from fsdriver.runtime import on_loop

JOBS: Final = 8
"""Files fetched at a time."""


class Caching(Listing):
    """Part of `fsdriver.filesystem.TierFileSystem`."""

    @from_any_loop
    async def _warm(
        self,
        paths: str | Sequence[str],
        recursive: bool = False,
        jobs: int = JOBS,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> int:
        """Fetch files into the cache, all there is of them; return when they are there. Those that are cost nothing.

        Parameters
        ----------
        paths : str or sequence of str
        recursive : bool
            Also the files of directories.
        jobs : int
            Files fetched at a time.
        callback : fsspec.callbacks.Callback
            Told the number of files, and of each that is done.

        Returns
        -------
        int
            Bytes fetched.

        Raises
        ------
        NotFound, IsDirectory
        NoSpace
            The cache cannot hold a file.
        BackendError
            The first failure; the other files are fetched all the same.
        """
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}: it must be at least 1")
        targets = await self._files(paths, recursive=recursive)
        callback.set_size(len(targets))
        await on_loop()
        slots = asyncio.Semaphore(jobs)

        async def one(target: Target, entry: Entry) -> int:
            async with slots:
                fetched = await caching.warm(target.route, target.name, entry)
            callback.relative_update(1)
            return fetched

        results = await asyncio.gather(*starmap(one, targets), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return sum(result for result in results if isinstance(result, int))

    def prefetch(self, paths: str | Sequence[str], recursive: bool = False) -> None:
        """Say that files will be read: they are fetched in the background, 8 at a time, in this order.

        Returns at once, from any thread or event loop, and never raises for a file that is missing or cannot be fetched:
        `prefetched` counts those. What is under way when the process ends is dropped.

        Parameters
        ----------
        paths : str or sequence of str
        recursive : bool
            Also the files of directories.
        """
        wanted = list(_several(paths))

        async def find() -> Sequence[Place]:
            targets = await self._files(wanted, recursive=recursive)
            return [(target.route, target.name, entry) for target, entry in targets]

        self._namespace.engine.prefetcher.hint(find)

    def prefetched(self) -> Prefetched:
        """What became of the hints of this process and configuration."""
        return self._namespace.engine.prefetcher.counts()

    @from_any_loop
    async def _verify(self, path: str, everything: bool = False, repair: bool = False) -> Verified:
        """Compare a file with the store, and with the cache of this host.

        Parameters
        ----------
        path : str
        everything : bool
            Fetch all bytes, and compare them with the checksum that the store gives.
        repair : bool
            Fetch anew what the cache had damaged.

        Returns
        -------
        Verified
            Its state, and what is wrong.

        Raises
        ------
        BackendError
            The store cannot be asked.
        """
        target = self._namespace.target(self._strip_protocol(path))
        return await verifying.verify(target.route, target.name, everything=everything, repair=repair)

    @from_any_loop
    async def _to_tier(self, path: str, tier: str, keep: bool = False, pin: bool = False) -> Mapping[str, Any]:
        """Have a verified copy of a file in a tier of its route.

        Parameters
        ----------
        path, tier : str
        keep : bool
            Leave the copies in other tiers where they are.
        pin : bool
            Let no rule move it away again.

        Returns
        -------
        mapping
            What is known of the file then; see `fsdriver.routes.tiering.explain`.

        Raises
        ------
        NotFound
        Unsupported
            The route has one tier, or none of that name.
        BackendError
            The store failed; the move is owed, and tried again.
        """
        target, _ = await self._located(self._strip_protocol(path))
        return await tiering.move(target.route, target.name, tier, keep=keep, pin=pin)

    @from_any_loop
    async def _evict(self, paths: str | Sequence[str]) -> Eviction:
        """Remove files, and all files of directories, from the cache of this host.

        Returns
        -------
        Eviction
            What was removed, and what stays because it is open, pinned or not in the store yet.

        Raises
        ------
        NotFound
        """
        done = Eviction()
        for path in _several(paths):
            target, _ = await self._located(self._strip_protocol(path))
            done += await caching.evict(target.route, target.name)
        return done

    @from_any_loop
    async def _pin(self, paths: str | Sequence[str], recursive: bool = False) -> int:
        """Keep files in the cache of this host, now or once they are in it; ``recursive``: those of directories.

        Returns
        -------
        int
            How many files.

        Raises
        ------
        NotFound, IsDirectory
        """
        return await self._set_pins(paths, recursive=recursive, pinned=True)

    @from_any_loop
    async def _unpin(self, paths: str | Sequence[str], recursive: bool = False) -> int:
        """Undo `pin`."""
        return await self._set_pins(paths, recursive=recursive, pinned=False)

    async def _set_pins(self, paths: str | Sequence[str], *, recursive: bool, pinned: bool) -> int:
        targets = await self._files(paths, recursive=recursive)
        known = {(target.route, target.name): entry for target, entry in targets}
        return await caching.set_pins(known, pinned=pinned, known=known)

    async def _files(self, paths: str | Sequence[str], *, recursive: bool) -> list[tuple[Target, Entry]]:
        """Files, and what the store said of them: for many of them it is not asked again."""
        found: list[tuple[Target, Entry]] = []
        stripped = [self._strip_protocol(given) for given in _several(paths)]
        await self._expect(stripped)
        for path in stripped:
            target, entry = await self._located(path)
            if entry.kind is not Kind.DIRECTORY:
                found.append((target, entry))
            elif not recursive:
                raise IsDirectory("is a directory: pass recursive=True for the files in it", path)
            else:
                found += [one async for one in self._files_below(path)]
        return found

    warm = synchronous(_warm)
    verify = synchronous(_verify)
    to_tier = synchronous(_to_tier)
    evict = synchronous(_evict)
    pin = synchronous(_pin)
    unpin = synchronous(_unpin)


def _several(paths: str | Sequence[str]) -> Sequence[str]:
    return [paths] if isinstance(paths, str) else paths
