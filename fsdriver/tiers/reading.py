"""Reading an object of a stack: from the hottest copy that answers, and is what it should be."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from fsdriver.backends.model import ObjectInfo, check_size
from fsdriver.errors import BackendError, Corrupt, FsdriverError, NotFound, Stale, Unreachable
from fsdriver.tiers.finding import Finder, good, is_away
from fsdriver.tiers.records import Copy, CopyState, Move, Record
from fsdriver.tiers.tier import Tier

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS: Final = 3
"""Times the copies of a record are looked for anew, because those it had were moved away meanwhile."""
CHANGED: Final = "it was changed by someone else meanwhile; read it again"
HASHED_HERE: Final = 256 << 10
"""Bytes whose checksum is computed on the event loop: handing them to a thread costs more."""


@dataclass(slots=True)
class Reads:
    """Counted for ``status``.

    Attributes
    ----------
    by_tier : dict of str to int
        Reads answered by each tier.
    fallbacks : int
        Reads that a hotter tier should have answered, and did not.
    corrupt : int
        Copies that were not what they should be.
    """

    by_tier: dict[str, int] = field(default_factory=dict)
    fallbacks: int = 0
    corrupt: int = 0


class TieredReader:
    """See the module.

    Parameters
    ----------
    finder : Finder
    repair : callable
        Is called when a repair was owed.
    """

    def __init__(self, finder: Finder, repair: Callable[[], None]) -> None:
        self._finder = finder
        self._repair = repair
        self.reads = Reads()

    async def head(self, key: str, also: Tier) -> tuple[ObjectInfo, Record]:
        """Attributes of one object as a tier tells them; ``also`` is asked too, for what others wrote there."""
        record = await self._finder.catalog.get(self._finder.stack, key)
        if record is not None and not record.removed:
            held = [(tier, copy) for tier, copy in good(record, self._finder.tiers) if tier.reachable]
            if held:
                info = await self._confirmed(key, *held[0], None if also.name in record.copies else also)
                if info is not None:
                    return info, record
        record = await self._finder.settle(key)
        if record is None:
            raise NotFound("no such object", key)
        return await self._from_copies(record, lambda tier, _: tier.backend.head(tier.key(key)))

    async def _confirmed(self, key: str, tier: Tier, copy: Copy, also: Tier | None) -> ObjectInfo | None:
        """What a tier says of a copy; None: it is another, or somewhere there is one that we do not know."""
        questions = [tier.backend.head(tier.key(key))]
        if also is not None and also.reachable:
            questions.append(also.backend.head(also.key(key)))
        info, *others = await asyncio.gather(*questions, return_exceptions=True)
        for answer in (info, *others):
            if not isinstance(answer, ObjectInfo | NotFound) and not is_away(answer):
                raise answer
        if any(isinstance(other, ObjectInfo) for other in others):
            return None
        return info if isinstance(info, ObjectInfo) and info.version == copy.version else None

    async def get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview:
        """Bytes of one object, of a version if one is given; whole ones are compared with their checksum."""

        async def read(record: Record, tier: Tier, copy: Copy) -> memoryview:
            data = await tier.backend.get(tier.key(key), start, end, copy.version)
            if start == 0 and len(data) == record.size:
                await _compare(data, record.sha256)
            return data

        data, _ = await self._current(key, version, read)
        return data

    async def fetch(self, key: str, most: int) -> tuple[ObjectInfo, memoryview, Record]:
        """A small object whole."""

        async def read(record: Record, tier: Tier, copy: Copy) -> tuple[ObjectInfo, memoryview]:
            place = tier.key(key)
            if not tier.backend.capabilities.strong_versions:
                # There, `fetch` may tell the attributes of one version and read the bytes of the next.
                info = await tier.backend.head(place)
                data = await tier.backend.get(place, 0, None, copy.version)
            else:
                try:
                    info, data = await tier.backend.fetch(place, most)
                except Corrupt:
                    if (await tier.backend.head(place)).version == copy.version:
                        raise
                    raise Stale(CHANGED, key) from None
            if info.version != copy.version:
                raise Stale(CHANGED, key)
            await _compare(data, record.sha256)
            return info, data

        (info, data), record = await self._current(key, None, read, most)
        return info, data, record

    async def _current(
        self,
        key: str,
        version: str | None,
        read: Callable[[Record, Tier, Copy], Awaitable[T]],
        most: int | None = None,
    ) -> tuple[T, Record]:
        """Read the object as it is now, or a version of it; others may replace it while it is looked for."""
        for attempt in range(ATTEMPTS):
            record = await self._finder.record(key)
            if record is not None and version not in {None, record.version}:
                record = await self._finder.settle(key)
            if record is None:
                raise NotFound("no such object", key)
            if version not in {None, record.version}:
                break
            if most is not None:
                check_size(ObjectInfo(key, record.size, record.mtime_ns, record.version), most)
            try:
                return await self._from_copies(record, partial(read, record))
            except Stale:
                if version is not None or attempt == ATTEMPTS - 1:
                    raise
        raise Stale(CHANGED, key)

    async def _from_copies(self, record: Record, read: Callable[[Tier, Copy], Awaitable[T]]) -> tuple[T, Record]:
        """Try the good copies one after the other, and again if they were moved meanwhile.

        Raises
        ------
        Stale
            The version is no more.
        BackendError
            No tier gave it; the message names each.
        """
        failures: dict[str, FsdriverError] = {}
        for _ in range(ATTEMPTS):
            moved = False
            for tier, copy in good(record, self._finder.tiers):
                try:
                    result = await read(tier, copy)
                except (NotFound, Stale):
                    moved = True
                except Corrupt as error:
                    failures[tier.name] = error
                    await self._condemn(record, tier, copy)
                except BackendError as error:
                    failures[tier.name] = error
                else:
                    self.reads.by_tier[tier.name] = self.reads.by_tier.get(tier.name, 0) + 1
                    self.reads.fallbacks += bool(failures)
                    return result, record
            if not moved:
                break
            now = await self._finder.settle(record.key)
            if now is None or now.version != record.version:
                raise Stale(CHANGED, record.key)
            record = now
        raise _all_failed(record, failures)

    async def _condemn(self, record: Record, tier: Tier, copy: Copy) -> None:
        """A copy is not what it should be: it is read no more, and made anew from a good one, if there is any."""
        self.reads.corrupt += 1
        catalog, stack = self._finder.catalog, self._finder.stack
        now = await catalog.get(stack, record.key)
        if now is None or now.copies.get(tier.name) != copy or now.version != record.version:
            return
        condemned = now.with_copy(tier.name, replace(copy, state=CopyState.CORRUPT))
        log.error("%s: the copy in tier %s is damaged: its bytes are not those that were stored", record.key, tier.name)
        again = (
            [Move(record.key, record.version, tier.name, reason="repair", size=record.size)] if tier.writable else []
        )
        if await catalog.swap(stack, condemned, now.serial, again) is not None:
            self._repair()


async def sha256_of(data: memoryview) -> bytes:
    """SHA-256 of bytes in memory; a thread computes that of many."""
    if len(data) <= HASHED_HERE:
        return hashlib.sha256(data).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).digest())


async def _compare(data: memoryview, expected: bytes | None) -> None:
    if expected is not None and await sha256_of(data) != expected:
        raise Corrupt("the bytes are not those that were stored")


def _all_failed(record: Record, failures: Mapping[str, FsdriverError]) -> BackendError:
    told = "; ".join(f"{tier}: {error.strerror or error}" for tier, error in failures.items())
    if not told:
        return BackendError("no tier has a good copy of it", record.key)
    kind = Unreachable if any(is_away(error) for error in failures.values()) else BackendError
    return kind(f"no tier gave it ({told})", record.key)
