"""What is asked of the cache file by file: bring it near, let it go, keep it.

The faces call these for ``fsdriver warm``, ``evict``, ``pin`` and ``unpin``, for ``fs.warm`` and for the attribute
``user.fsdriver.pin``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from fsdriver.cache import Evicted
from fsdriver.entry import Entry, Kind
from fsdriver.errors import IsDirectory, NoSpace, Stale, Unsupported
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop

EMPTY: Final[Mapping[Any, Entry]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Eviction:
    """What became of the files that were to leave the cache.

    Attributes
    ----------
    files, bytes : int
        Removed.
    open, pinned, pending : int
        Files that stay: some process has them open; they are pinned; the store does not have them yet.
    """

    files: int = 0
    bytes: int = 0
    open: int = 0
    pinned: int = 0
    pending: int = 0

    def __add__(self, other: Eviction) -> Eviction:
        return Eviction(
            self.files + other.files,
            self.bytes + other.bytes,
            self.open + other.open,
            self.pinned + other.pinned,
            self.pending + other.pending,
        )


async def warm(route: Route, path: str, entry: Entry | None = None) -> int:
    """Fetch one file into the cache.

    Parameters
    ----------
    entry : Entry, optional
        What a listing said of it a moment ago: the store is not asked again.

    Returns
    -------
    int
        Bytes fetched; 0 if it was here.

    Raises
    ------
    NotFound, IsDirectory
    Unsupported
        It is no regular file.
    NoSpace
        The cache cannot hold it.
    BackendError
    """
    if entry is None:
        entry = await route.stat(path)
    try:
        return await _fetch(route, path, entry)
    except Stale:
        return await _fetch(route, path, await route.stat(path, fresh=True))


async def _fetch(route: Route, path: str, entry: Entry) -> int:
    _must_be_file(path, entry)
    if entry.staging is not None or route.services.cache.contains(route.content_key(path, entry)):
        return 0
    try:
        with await route.open(path, entry, to_keep=True) as reader:
            await on_loop()
            await reader.wait_complete()
            if reader.path is None:
                raise NoSpace("the cache has no room for it: raise cache.size, evict or unpin something", path)
    except NoSpace as error:
        raise NoSpace(error.message, path) from error
    return entry.size


async def evict(route: Route, path: str) -> Eviction:
    """Remove a file, or all files of a directory, from the cache; raises NotFound."""
    entry = await route.stat(path)
    manual, identity = route.services.cache.manual, route.backend.identity
    await on_loop()
    if entry.kind is Kind.DIRECTORY:
        done = [await asyncio.to_thread(manual.evict_below, identity, place) for place in route.places(path)]
        pending = sum(row.staging is not None for row in route.owed_below(path))
    else:
        done = [await asyncio.to_thread(manual.evict, identity, key) for key in _keys(route, path, entry)]
        pending = int(entry.staging is not None)
    total = sum(done, Evicted())
    return Eviction(total.files, total.bytes, total.open, total.pinned, pending)


async def pin(route: Route, paths: Sequence[str], known: Mapping[str, Entry] = EMPTY) -> None:
    """Keep files in the cache from now on, in whichever version; those not in it, once they are.

    Parameters
    ----------
    known : mapping of str to Entry
        What a listing said of some of them a moment ago.

    Raises
    ------
    NotFound, IsDirectory, Unsupported
        Nothing was pinned then.
    """
    keys: list[str] = []
    for path in paths:
        entry = known.get(path) or await route.stat(path)
        _must_be_file(path, entry)
        keys += _keys(route, path, entry)
    await on_loop()
    await asyncio.to_thread(route.services.cache.manual.pin, route.backend.identity, keys)


async def unpin(route: Route, paths: Sequence[str], known: Mapping[str, Entry] = EMPTY) -> None:
    """Undo `pin`, also of files that are gone."""
    keys: list[str] = []
    for path in paths:
        entry = known.get(path) or await route.find_entry(path)
        keys += [route.key(path)] if entry is None else _keys(route, path, entry)
    await on_loop()
    await asyncio.to_thread(route.services.cache.manual.unpin, route.backend.identity, keys)


async def set_pins(
    places: Iterable[tuple[Route, str]], *, pinned: bool, known: Mapping[tuple[Route, str], Entry] = EMPTY
) -> int:
    """`pin` or `unpin` files of several routes, those of one in one step.

    Parameters
    ----------
    places : iterable of (Route, str)
        Paths within their routes.
    pinned : bool
    known : mapping
        What listings said of some of them a moment ago.

    Returns
    -------
    int
        How many files.
    """
    paths: dict[Route, list[str]] = {}
    for route, path in places:
        paths.setdefault(route, []).append(path)
    for route, some in paths.items():
        listed = {path: entry for path in some if (entry := known.get((route, path))) is not None}
        await (pin if pinned else unpin)(route, some, listed)
    return sum(map(len, paths.values()))


def is_pinned(route: Route, path: str, entry: Entry) -> bool:
    """Whether a file is pinned."""
    manual = route.services.cache.manual
    return any(manual.pinned(route.backend.identity, key) for key in _keys(route, path, entry))


def _keys(route: Route, path: str, entry: Entry) -> list[str]:
    """Where the bytes are, and where they will be once a rename that is pending has been carried out."""
    return list(dict.fromkeys((route.key(path), entry.key or route.key(path))))


def _must_be_file(path: str, entry: Entry) -> None:
    if entry.kind is Kind.DIRECTORY:
        raise IsDirectory("is a directory: the cache keeps files", path)
    if entry.kind is not Kind.FILE:
        raise Unsupported(f"is a {entry.kind}, which has no bytes in the store", path)
