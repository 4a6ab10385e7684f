"""Looking at the tree: info, ls, find, du, exists, isfile, isdir, get_many_stats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fsspec.asyn import _run_coros_in_chunks

from fsdriver.entry import Entry, Kind
from fsdriver.errors import FsdriverError, IsDirectory, NotDirectory, NotFound
from fsdriver.fsspec_face.base import Face, from_any_loop, synchronous
from fsdriver.fsspec_face.targets import Target, join, parent
from fsdriver.runtime import on_loop


class Listing(Face):
    """Part of `fsdriver.filesystem.TierFileSystem`. ``refresh=True`` asks the store, whatever is remembered."""

    @from_any_loop
    async def _info(self, path: str, refresh: bool = False, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        try:
            if refresh:
                target = self._namespace.target(path)
                entry = await target.route.stat(target.name, fresh=True)
            else:
                target, entry = await self._lstat(path)
        except NotFound:
            if self._namespace.children(path):
                return self.describe_above(path)
            raise
        return await self._described(path, entry)

    @from_any_loop
    async def _ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        try:
            target, entry = await self._located(path)
        except NotFound:
            children = self._namespace.children(path)
            if not children:
                raise
            shown = [self.describe_above(join(path, name)) for name in children]
            return shown if detail else [info["name"] for info in shown]
        if entry.kind is not Kind.DIRECTORY:
            return [await self._described(path, entry)] if detail else [path]
        entries = dict(await self._entries(path, target, refresh=refresh))
        for name in self._namespace.children(path):
            entries[name] = entries.get(name) or target.route.new_directory(name)
        if not detail:
            return [join(path, name) for name in sorted(entries)]
        return [await self._described(join(path, name), entries[name]) for name in sorted(entries)]

    async def _entries(self, path: str, target: Target, *, refresh: bool = False) -> dict[str, Entry]:
        """A directory's entries; empty if it vanished with its last file meanwhile."""
        try:
            return dict(await target.route.list(target.name, fresh=refresh))
        except NotDirectory:
            _, entry = await self._lstat(path)
            return {"": entry}

    async def _described(self, path: str, entry: Entry) -> dict[str, Any]:
        if entry.kind is not Kind.SYMLINK:
            return self.describe(path, entry)
        try:
            followed = (await self._located(path))[1]
        except FsdriverError:
            # A link to nothing, or in a circle, is still a name: it shows as what it is.
            followed = None
        return self.describe(path, entry, followed)

    @from_any_loop
    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **kwargs: Any,
    ) -> Any:
        """All files below a path, by flat listings; ``prefix`` is a hint of `glob`, whose pattern decides anyway."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        if maxdepth is None:
            await self._find_flat(path, withdirs, found)
        else:
            async for _, directories, files in self._walk(path, maxdepth=maxdepth, detail=True):
                for info in (*files.values(), *(directories.values() if withdirs else ())):
                    found[info["name"]] = info
        try:
            own = await self._info(path)
        except NotFound:
            own = None
        if own is not None and (own["type"] != "directory" or (withdirs and path not in {"", self.root_marker})):
            found[path] = own
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    async def _find_flat(self, path: str, withdirs: bool, found: dict[str, dict[str, Any]]) -> None:
        starts = [*self._namespace.routes_below(path)]
        try:
            target, entry = await self._located(path)
        except NotFound:
            pass  # what does not exist has no files; fsspec's find says so with an empty result
        else:
            if entry.kind is Kind.DIRECTORY:
                await self._find_in_route(path, target, starts, withdirs, found)
        for start in starts:
            nested = self._namespace.target(start)
            await self._find_in_route(start, nested, [r for r in starts if r.startswith(f"{start}/")], withdirs, found)
            if withdirs:
                for above in (start, *_above(start)):
                    if above.startswith(f"{path}/" if path else ""):
                        found.setdefault(above, self.describe_above(above))

    async def _find_in_route(
        self, path: str, target: Target, nested: list[str], withdirs: bool, found: dict[str, dict[str, Any]]
    ) -> None:
        async for name, shown, entry in self._listed(path, target, nested):
            if entry.kind is not Kind.DIRECTORY:
                found[shown] = await self._described(shown, entry)
            if withdirs:
                if entry.kind is Kind.DIRECTORY:
                    found[shown] = self.describe(shown, target.route.cached(name) or entry)
                for above in _above(name[len(target.name) :].lstrip("/")):
                    place = join(path, above)
                    if place not in found:
                        route_name = join(target.name, above)
                        known = target.route.cached(route_name) or target.route.new_directory(route_name)
                        found[place] = self.describe(place, known)

    async def _files_below(self, path: str) -> AsyncIterator[tuple[Target, Entry]]:
        """Regular files below a directory, those of the routes in it too."""
        starts = [*self._namespace.routes_below(path)]
        for start in (path, *starts):
            target = self._namespace.target(start)
            nested = [other for other in starts if other.startswith(f"{start}/" if start else "")]
            async for name, _, entry in self._listed(start, target, nested):
                if entry.kind is Kind.FILE:
                    yield target.at(name), entry

    async def _listed(self, path: str, target: Target, nested: list[str]) -> AsyncIterator[tuple[str, str, Entry]]:
        """All names below a directory in one route but for those that ``nested`` routes hide: there, as shown, entry."""
        covered = tuple(f"{route}/" for route in nested)
        cut = len(target.name) + 1 if target.name else 0
        async for batch in target.route.find(target.name):
            for name, entry in batch.items():
                below = name[cut:]
                shown = join(path, below)
                if below and not f"{shown}/".startswith(covered):
                    yield name, shown, entry

    @from_any_loop
    async def _du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        found = await self._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: info["size"] for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    @from_any_loop
    async def _exists(self, path: str, **kwargs: Any) -> bool:
        path = self._strip_protocol(path)
        try:
            await self._located(path)
        except (NotFound, NotDirectory):
            return bool(self._namespace.children(path))
        return True

    @from_any_loop
    async def _isfile(self, path: str) -> bool:
        try:
            return (await self._located(self._strip_protocol(path)))[1].kind is Kind.FILE
        except (NotFound, NotDirectory):
            return False

    @from_any_loop
    async def _isdir(self, path: str) -> bool:
        path = self._strip_protocol(path)
        try:
            return (await self._located(path))[1].kind is Kind.DIRECTORY
        except (NotFound, NotDirectory):
            return bool(self._namespace.children(path))

    @from_any_loop
    async def _lexists(self, path: str, **kwargs: Any) -> bool:
        try:
            await self._lstat(self._strip_protocol(path))
        except (NotFound, NotDirectory):
            return False
        return True

    @from_any_loop
    async def _get_many_stats(self, paths: Sequence[str], concurrency: int = 100) -> tuple[int, int]:
        """Ask for the sizes of many files at once, so that opening them asks for nothing but their bytes.

        What was told is trusted for the ``ttl`` of the route (10 s by default, or that of this filesystem) and is
        remembered within ``cache.metadata``; changes through the driver show at once.

        Parameters
        ----------
        paths : sequence of str
        concurrency : int
            Files asked for at a time; names of one directory come in a listing where that is fewer requests.

        Returns
        -------
        (int, int)
            How many files, and their bytes.

        Raises
        ------
        NotFound, IsDirectory
        """
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}: it must be at least 1")
        stripped = [self._strip_protocol(path) for path in paths]
        await self._expect(stripped)

        async def size(path: str) -> int:
            _, entry = await self._located(path)
            if entry.kind is Kind.DIRECTORY:
                raise IsDirectory("is a directory", path)
            return entry.size

        await on_loop()
        sizes = await _run_coros_in_chunks([size(path) for path in stripped], batch_size=concurrency, nofiles=True)
        return len(sizes), sum(sizes)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Remember nothing at and below a path (None: anywhere) that this process learned; files stay cached."""
        super().invalidate_cache(path)
        if path is None:
            for route in self._namespace.known_routes():
                route.forget("")
            return
        target = self._namespace.target(self._strip_protocol(path))
        target.route.forget(target.name)

    info = synchronous(_info)
    ls = synchronous(_ls)
    exists = synchronous(_exists)
    isfile = synchronous(_isfile)
    isdir = synchronous(_isdir)
    lexists = synchronous(_lexists)
    get_many_stats = synchronous(_get_many_stats)


def _above(path: str) -> Iterator[str]:
    """The directories above a relative path, nearest first."""
    while path := parent(path):
        yield path
