"""Asking the tiers of a stack what they hold, and keeping the catalog in line with it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeGuard

from fsdriver.backends.model import ObjectInfo
from fsdriver.errors import BackendError, ContainerMissing, NotFound, Stale
from fsdriver.tiers.catalog import Catalog
from fsdriver.tiers.records import Copy, Record
from fsdriver.tiers.settling import adopted, agrees, settle
from fsdriver.tiers.tier import Tier

ASKED_AT_ONCE: Final = 16
"""Keys of one listing about which the tiers are asked anew at a time."""
ATTEMPTS: Final = 8
"""Times somebody else may change a record while we settle it."""
AFTER_ALL_BELOW: Final = "\U0010ffff"
"""Appended to a directory key: comes after all keys below it."""


@dataclass(slots=True)
class Level:
    """What the tiers told of one level, or of everything below a prefix.

    Attributes
    ----------
    objects : dict of str to dict
        By key, what each tier holds.
    prefixes : set of str
        Keys of directories.
    unreached : dict of str to BackendError
        Tiers that gave no answer.
    """

    objects: dict[str, dict[str, ObjectInfo]] = field(default_factory=dict)
    prefixes: set[str] = field(default_factory=set)
    unreached: dict[str, BackendError] = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    """Counted for ``status``: objects of others that were taken over, that have gone, and records found wrong."""

    adopted: int = 0
    vanished: int = 0
    settled: int = 0


class Finder:
    """See the module.

    Parameters
    ----------
    stack : str
        Identity in the catalog.
    tiers : sequence of Tier
        Hot to cold.
    catalog : Catalog
    """

    def __init__(self, stack: str, tiers: Sequence[Tier], catalog: Catalog) -> None:
        self.stack = stack
        self.tiers = {tier.name: tier for tier in tiers}
        self.catalog = catalog
        self.findings = Findings()

    async def record(self, key: str) -> Record | None:
        """What is known of a live object, without asking the tiers if anything is."""
        record = await self.catalog.get(self.stack, key)
        if record is None:
            return await self.settle(key)
        return None if record.removed else record

    async def settle(self, key: str) -> Record | None:
        """Ask all tiers, and make the record say what they hold.

        Returns
        -------
        Record or None
            Of a live object; None: there is none.

        Raises
        ------
        BackendError
            Nothing is known of the object, and a tier that may hold it gave no answer.
        """
        for _ in range(ATTEMPTS):
            record = await self.catalog.get(self.stack, key)
            found, unreached = await self.ask(key)
            if record is None and not found and unreached:
                raise next(iter(unreached.values()))
            if agrees(record, found, unreached):
                return record if record is not None and not record.removed else None
            made = settle(key, record, found, unreached)
            if made is None:
                return None
            done = await self.catalog.swap(self.stack, made, record.serial if record else 0)
            if done is not None:
                self._count(record, done)
                return None if done.removed else done
        raise Stale("others change it all the time; try again", key)

    def _count(self, before: Record | None, after: Record) -> None:
        self.findings.adopted += before is None or before.removed
        self.findings.vanished += after.removed
        self.findings.settled += before is not None

    async def ask(self, key: str) -> tuple[dict[str, ObjectInfo], dict[str, BackendError]]:
        """What each tier holds of one key; tiers that gave no answer, and why."""
        tiers = list(self.tiers.values())
        answers = await asyncio.gather(*(tier.backend.head(tier.key(key)) for tier in tiers), return_exceptions=True)
        found: dict[str, ObjectInfo] = {}
        unreached: dict[str, BackendError] = {}
        for tier, answer in zip(tiers, answers, strict=True):
            if isinstance(answer, ObjectInfo):
                found[tier.name] = answer
            elif is_away(answer):
                unreached[tier.name] = answer
            elif not isinstance(answer, NotFound):
                raise answer
        return found, unreached

    # -- listings ------------------------------------------------------------------------------------------------------

    async def list(
        self, prefix: str, *, delimiter: bool, start_after: str
    ) -> tuple[list[tuple[str, Record]], list[str]]:
        """Live objects under a prefix by key, and keys of directories, from all tiers.

        A tier that gives no answer is stood in for by what the catalog knows of it. Raises its error if that is all there is.
        """
        level = await self._ask_all(prefix, delimiter, start_after)
        known = await self._known(prefix, delimiter, start_after)
        if level.unreached:
            if not (level.objects or level.prefixes or known):
                raise next(iter(level.unreached.values()))
            await self._recall(level, prefix, known, delimiter=delimiter)
        records: dict[str, Record] = {}
        unknown: list[Record] = []
        doubtful: list[str] = []
        for key in level.objects.keys() | known.keys():
            found, record = level.objects.get(key, {}), known.get(key)
            if agrees(record, found, level.unreached):
                if record is not None and not record.removed:
                    records[key] = record
            elif record is None and len(found) == 1:
                ((tier, info),) = found.items()
                unknown.append(adopted(key, tier, info, level.unreached))
            else:
                doubtful.append(key)
        if unknown:
            await self.catalog.adopt(self.stack, unknown)
            self.findings.adopted += len(unknown)
            records |= {record.key: record for record in unknown}
        records |= await self._settle_all(doubtful)
        return sorted(records.items()), sorted(level.prefixes)

    async def _settle_all(self, keys: Sequence[str]) -> dict[str, Record]:
        slots, settled = asyncio.Semaphore(ASKED_AT_ONCE), dict[str, Record]()

        async def one(key: str) -> None:
            async with slots:
                record = await self.settle(key)
            if record is not None:
                settled[key] = record

        await asyncio.gather(*(one(key) for key in keys))
        return settled

    async def _ask_all(self, prefix: str, delimiter: bool, start_after: str) -> Level:
        level = Level()

        async def one(tier: Tier) -> None:
            after = tier.key(start_after) if start_after else ""
            try:
                async for page in tier.backend.list(tier.key(prefix), delimiter=delimiter, start_after=after):
                    for info in page.objects:
                        if key := tier.own(info.key):  # without the marker of the tier's own root
                            level.objects.setdefault(key, {})[tier.name] = info
                    level.prefixes.update(map(tier.own, page.prefixes))
            except BackendError as error:
                if not is_away(error):
                    raise
                level.unreached[tier.name] = error

        await asyncio.gather(*(one(tier) for tier in self.tiers.values()))
        return level

    async def _known(self, prefix: str, delimiter: bool, start_after: str) -> dict[str, Record]:
        directory = not prefix or prefix.endswith("/")
        if delimiter and directory:
            known = {one.key: one async for one in self.catalog.of_directory(self.stack, prefix) if one.key[-1] != "/"}
            if prefix and (marker := await self.catalog.get(self.stack, prefix)):
                known[prefix] = marker
        else:
            stream = self.catalog.below(self.stack, prefix)
            known = {one.key: one async for one in stream if not delimiter or "/" not in one.key[len(prefix) :]}
        return {key: one for key, one in known.items() if key > start_after}

    async def _recall(self, level: Level, prefix: str, known: Mapping[str, Record], *, delimiter: bool) -> None:
        """Add the directories below which a tier that gave no answer has anything."""
        if not delimiter:
            return
        at = prefix
        while (found := await self._next_below(prefix, at, level.unreached)) is not None:
            level.prefixes.add(found)
            at = found + AFTER_ALL_BELOW

    async def _next_below(self, prefix: str, after: str, unreached: Collection[str]) -> str | None:
        async for record in self.catalog.below(self.stack, prefix, after):
            inside = record.key[len(prefix) :]
            if "/" in inside and not record.removed and any(tier in record.copies for tier in unreached):
                return prefix + inside[: inside.index("/") + 1]
        return None


def is_away(error: BaseException) -> TypeGuard[BackendError]:
    """The tier gave no answer, and may at another time."""
    return isinstance(error, BackendError) and (error.temporary or isinstance(error, ContainerMissing))


def good(record: Record, tiers: Mapping[str, Tier]) -> list[tuple[Tier, Copy]]:
    """Copies that can be read, in the order in which to try them: hot to cold, but what answers first."""
    held = [(tier, record.copies[name]) for name, tier in tiers.items() if name in record.holders()]
    return sorted(held, key=lambda one: not one[0].reachable)
