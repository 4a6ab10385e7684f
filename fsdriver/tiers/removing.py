"""Removing the copies that have to go, wherever they are, and no others."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fsdriver.errors import BackendError, NotFound, Stale
from fsdriver.tiers.finding import Finder, is_away
from fsdriver.tiers.records import Copy, Record
from fsdriver.tiers.tier import Tier

log = logging.getLogger(__name__)

AT_ONCE: Final = 16


class Remover:
    """See the module.

    Parameters
    ----------
    finder : Finder
    """

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    async def remove(self, record: Record) -> dict[str, BackendError]:
        """Remove the owed copies of a record; what a tier does not answer stays owed.

        Returns
        -------
        dict of str to BackendError
            Tiers that still have theirs, and why.
        """
        owed = [
            (tier, copy) for name, copy in record.owed().items() if (tier := self._finder.tiers.get(name)) is not None
        ]
        answers = await asyncio.gather(*(self._remove(record.key, *one) for one in owed), return_exceptions=True)
        failed: dict[str, BackendError] = {}
        gone: dict[str, Copy] = {}
        for (tier, copy), answer in zip(owed, answers, strict=True):
            if isinstance(answer, BackendError):
                failed[tier.name] = answer
            elif answer is not None:
                raise answer
            else:
                gone[tier.name] = copy
        await self._note(record, gone)
        return failed

    async def remove_all(self) -> int:
        """Try what is owed of all records; how many copies are still there."""
        left = 0
        some: list[Record] = []
        async for record in self._finder.catalog.owing_removals(self._finder.stack):
            some.append(record)
            if len(some) == AT_ONCE:
                left += await self._remove_some(some)
                some = []
        return left + await self._remove_some(some)

    async def _remove_some(self, records: list[Record]) -> int:
        return sum(map(len, await asyncio.gather(*(self.remove(record) for record in records))))

    async def _remove(self, key: str, tier: Tier, copy: Copy) -> None:
        """Only of that version: what else has come there meanwhile is not ours to remove."""
        if not tier.writable:
            return  # a copy in a tier that is only read stays hidden: the record says so for ever
        if not tier.reachable:
            raise BackendError(f"tier {tier.name} is out of reach", key)
        place = tier.key(key)
        try:
            if (
                not tier.backend.capabilities.conditional_delete
                and (await tier.backend.head(place)).version != copy.version
            ):
                return
            await tier.backend.delete(place, if_version=None if key.endswith("/") else copy.version)
        except (NotFound, Stale):
            return
        except BackendError as error:
            if not is_away(error):
                log.warning("%s: its copy in tier %s cannot be removed: %s", key, tier.name, error)
            raise

    async def _note(self, record: Record, gone: dict[str, Copy]) -> None:
        while gone:
            made = record
            for tier, copy in gone.items():
                if made.copies.get(tier) == copy and self._finder.tiers[tier].writable:
                    made = made.with_copy(tier, None)
            if made is record or await self._finder.catalog.swap(self._finder.stack, made, record.serial) is not None:
                return
            now = await self._finder.catalog.get(self._finder.stack, record.key)
            if now is None:
                return
            record = now
