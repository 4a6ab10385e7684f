"""One file compared through all it is kept in: the store, and the cache."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Final

from fsdriver.backends.base import ObjectInfo
from fsdriver.cache import Checksum, FileState
from fsdriver.entry import Entry, Kind
from fsdriver.errors import NotFound, Stale
from fsdriver.routes.caching import warm
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop

STEP: Final = 8 << 20
"""Bytes of an object that are fetched at a time; whole blocks of the cache's checksums."""
ATTEMPTS: Final = 3
"""Looks at a file that others change meanwhile."""


@dataclass
class Verified:
    """What was found of one file.

    Attributes
    ----------
    state : str
        ``good``; ``pending``: the store does not have it yet; ``gone``: it was removed meanwhile; ``wrong``.
    bytes : int
        That were fetched to be compared.
    compared : bool
        All bytes of the object had the checksum that the store gives.
    repaired : bool
    problems : list of str
    """

    state: str = "good"
    bytes: int = 0
    compared: bool = False
    repaired: bool = False
    problems: list[str] = field(default_factory=list)


async def verify(route: Route, path: str, *, everything: bool = False, repair: bool = False) -> Verified:
    """Compare a file's entry, its object and its cache file.

    Parameters
    ----------
    everything : bool
        Fetch all bytes of the object, and compare them with the checksum that the store gives and with the cache.
    repair : bool
        Fetch a cache file anew that was damaged; else who reads it next does.

    Raises
    ------
    BackendError
        The store cannot be asked.
    """
    await on_loop()
    for attempt in range(ATTEMPTS):
        try:
            entry = await route.stat(path, fresh=True)
        except NotFound:
            return Verified("gone")
        if entry.kind is not Kind.FILE or _is_pending(route, path, entry):
            return Verified("pending" if entry.kind is Kind.FILE else "good")
        try:
            return await _compare(
                route, path, entry, everything=everything, repair=repair, last=attempt == ATTEMPTS - 1
            )
        except Stale:
            continue
    return Verified("pending")


def _is_pending(route: Route, path: str, entry: Entry) -> bool:
    return entry.staging is not None or route.journal.get(route.backend.identity, route.key(path)) is not None


async def _compare(route: Route, path: str, entry: Entry, *, everything: bool, repair: bool, last: bool) -> Verified:
    found = Verified()
    key, cache = route.content_key(path, entry), route.services.cache
    try:
        info: ObjectInfo | None = await route.backend.head(key.key)
    except NotFound:
        info = None
    if info is None or (info.version, info.size) != (key.version, key.size):
        if not last:
            raise Stale("changed meanwhile", path)
        stored = "nothing" if info is None else f"{info.size:,} bytes as version {info.version}"
        found.problems.append(f"the store has {stored}, not {key.size:,} bytes as version {key.version}")
    look = asyncio.get_running_loop().run_in_executor
    state = await look(None, cache.checker.look_at, key)
    if state is FileState.DAMAGED:
        found.problems.append("its bytes in the cache were damaged, and are removed there")
    if everything and info is not None and not found.problems:
        digest = await _compare_bytes(route, key.key, info, found)
        if not found.problems and await look(None, cache.checker.look_at, key, digest) is FileState.DAMAGED:
            state = FileState.DAMAGED
            found.problems.append("its bytes in the cache were not those of the store, and are removed there")
    if repair and state is FileState.DAMAGED:
        await warm(route, path)
        found.repaired = True
    if found.problems:
        found.state = "wrong"
    return found


async def _compare_bytes(route: Route, key: str, info: ObjectInfo, found: Verified) -> bytes:
    """Fetch an object; returns the `Checksum` of its bytes."""
    sums = Checksum()
    md5 = hashlib.md5(usedforsecurity=False)
    for start in range(0, info.size, STEP):
        piece = await route.backend.get(key, start, min(start + STEP, info.size), info.version)
        await asyncio.to_thread(md5.update, piece)
        sums.add(piece)
        found.bytes += len(piece)
    agrees = await route.backend.has_digest(key, info.version, md5.hexdigest())
    found.compared = agrees is True
    if agrees is False:
        found.problems.append("the bytes of the object do not have the checksum that the store gives (its ETag)")
    return sums.digest()
