"""Changing objects of a stack: one tier decides who wins, the catalog follows, the other copies go or are owed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fsdriver.backends.model import ABSENT, ObjectInfo
from fsdriver.backends.source import Source, Watched
from fsdriver.errors import BackendError, NotFound, Stale
from fsdriver.tiers.finding import Finder, good, is_away
from fsdriver.tiers.reading import CHANGED, sha256_of
from fsdriver.tiers.records import UNASKED, Copy, CopyState, Move, Record
from fsdriver.tiers.removing import Remover
from fsdriver.tiers.settling import unasked
from fsdriver.tiers.tier import Tier, version_of

ATTEMPTS: Final = 4
"""Times a write is tried anew because a copy of the very version it replaces was moved meanwhile."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a write demands, and what was known when it began.

    Attributes
    ----------
    condition : str or None
        What the tier has to hold.
    asked : bool
        It is known what all tiers have of that key.
    serial : int
        Of the record.
    """

    condition: str | None
    asked: bool
    serial: int


@dataclass(frozen=True, slots=True)
class Written:
    """A new version of an object, and the copies of it that are owed."""

    record: Record
    owed: Sequence[Move]


class TieredWriter:
    """See the module.

    Parameters
    ----------
    finder, remover
    entry : Tier
        Where new objects come to lie.
    replicas : sequence of str
        Tiers that get a copy of every object.
    everywhere : str
        Keys that begin with this get a copy in every tier: what describes the tree is read when any tier is away.
    """

    def __init__(self, finder: Finder, remover: Remover, entry: Tier, replicas: Sequence[str], everywhere: str) -> None:
        self._finder = finder
        self._remover = remover
        self._catalog = finder.catalog
        self._stack = finder.stack
        self._replicas = replicas
        self.everywhere = everywhere
        self.entry = entry

    def replicas(self, key: str) -> list[str]:
        """Tiers that owe a copy of a new object."""
        if key.startswith(self.everywhere):
            names = [name for name, tier in self._finder.tiers.items() if tier.writable]
        else:
            names = list(self._replicas)
        return [name for name in names if name != self.entry.name]

    async def put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
        *,
        doubtful: bool,
    ) -> tuple[ObjectInfo, Written]:
        """Create or replace an object; raises `Stale` if the condition is lost."""
        digest = asyncio.ensure_future(digest_of(source))
        try:
            info, claim = await self._put(key, source, metadata, if_version, content_type, doubtful=doubtful)
            return info, await self._record(key, info, self.entry, info.version, await digest, claim)
        finally:
            digest.cancel()

    async def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
        *,
        doubtful: bool,
    ) -> tuple[ObjectInfo, Claim]:
        for attempt in range(ATTEMPTS):
            claim = await self._condition(key, self.entry, if_version, doubtful=doubtful)
            try:
                info = await self.entry.backend.put(
                    self.entry.key(key), source, metadata=metadata, if_version=claim.condition, content_type=content_type,
                    doubtful=doubtful,
                )  # fmt: skip
            except Stale:
                # Lost against a move of the same version? Then the record says so by now.
                if claim.condition is None or attempt == ATTEMPTS - 1:
                    raise
                await self._finder.settle(key)
                now = await self._condition(key, self.entry, if_version, doubtful=doubtful)
                if now.condition == claim.condition:
                    raise
            else:
                return info, claim
        raise Stale(CHANGED, key)

    async def _condition(self, key: str, tier: Tier, if_version: str | None, *, doubtful: bool) -> Claim:
        """What a tier has to hold of a key now, so that the object in the stack is ``if_version``.

        Raises
        ------
        Stale
            It is another. If the write was tried before, the tier is left to find that out: it knows its own.
        """
        record = await self._catalog.get(self._stack, key)
        asked = True
        if record is None:
            try:
                record = await self._finder.settle(key)
            except BackendError as error:
                if not is_away(error) or if_version not in {None, ABSENT}:
                    raise
                asked = False
        if if_version is None:
            return Claim(None, asked, _serial(record))
        if (version := _live(record)) != if_version and asked:
            record = await self._finder.settle(key) or await self._catalog.get(self._stack, key)
            version = _live(record)
        if version != if_version:
            if doubtful:
                return Claim(if_version, asked, _serial(record))
            raise Stale(CHANGED, key)
        held = record.copies.get(tier.name) if record is not None else None
        there = ABSENT if held is None or held.version == UNASKED else held.version
        return Claim(there, asked, _serial(record))

    async def _record(
        self, key: str, info: ObjectInfo, tier: Tier, version: str, sha256: bytes | None, claim: Claim
    ) -> Written:
        """Make a copy that was just written the object; others of it have to go."""
        owed = [
            Move(key, version, target=name, reason="replicate", size=info.size, not_before=time.time())
            for name in self.replicas(key)
        ]  # fmt: skip
        while True:
            before = await self._catalog.get(self._stack, key)
            if before is not None:
                copies = {name: _to_go(copy) for name, copy in before.copies.items()}
            else:
                copies = {} if claim.asked else {name: unasked() for name in self._finder.tiers}
            copies[tier.name] = Copy(info.version, CopyState.GOOD, time.time())
            made = Record(
                key, version, info.size, info.mtime_ns, copies, sha256, pin=before.pin if before is not None else None
            )
            if _serial(before) != claim.serial and before is not None and await _superseded(before, info, tier):
                return Written(made, [])
            done = await self._catalog.swap(self._stack, made, _serial(before), owed)
            if done is not None:
                if done.owed():
                    await self._remover.remove(done)
                return Written(done, owed)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
        doubtful: bool,
    ) -> tuple[ObjectInfo, Written]:
        """Copy inside the hottest tier that holds the source and can be written."""
        record = await self._finder.record(source)
        if record is not None and source_version not in {None, record.version}:
            record = await self._finder.settle(source)
        if record is None:
            raise NotFound("no such object", source)
        if source_version not in {None, record.version}:
            raise Stale(CHANGED, source)
        failure: BackendError | None = None
        for tier, copy in good(record, self._finder.tiers):
            if not tier.writable:
                continue
            claim = await self._condition(target, tier, if_version, doubtful=doubtful)
            try:
                info = await tier.backend.copy(
                    tier.key(source), tier.key(target), source_version=copy.version, if_version=claim.condition,
                    metadata=metadata, size=record.size, doubtful=doubtful,
                )  # fmt: skip
            except BackendError as error:
                failure = error
                continue
            if info.metadata is None and metadata is None and copy.version != record.version:
                info = await tier.backend.head(tier.key(target))  # whether it took the mark of a copy along
            version = version_of(info) if metadata is None else info.version
            return info, await self._record(target, info, tier, version, record.sha256, claim)
        raise failure or BackendError("no tier that can be written has a good copy of it", source)

    async def delete(self, key: str, if_version: str | None) -> None:
        """Remove an object from all tiers; what a tier does not answer stays owed, and hidden.

        Raises
        ------
        Stale
            It is not ``if_version``.
        BackendError
            No tier that holds it answered.
        """
        done: Record | None
        while True:
            known = await self._catalog.get(self._stack, key)
            if known is not None and known.removed:
                done = known
                break
            if known is None or if_version not in {None, known.version} or key.endswith("/"):
                known = await self._finder.settle(key)  # directories may be in tiers that we did not put them into
            if known is None:
                return
            if if_version not in {None, known.version}:
                raise Stale(CHANGED, key)
            owed = {name: _to_go(copy) for name, copy in known.copies.items()}
            done = await self._catalog.swap(self._stack, replace(known, version="", copies=owed), known.serial)
            if done is not None:
                break
        failed = await self._remover.remove(done)
        if failed and len(failed) == len(done.owed()):
            raise next(iter(failed.values()))


async def _superseded(before: Record, info: ObjectInfo, tier: Tier) -> bool:
    """Whether somebody has replaced what we wrote before we could say so in the catalog."""
    held = before.copies.get(tier.name)
    if held is not None and held.version == info.version:
        return False
    try:
        return (await tier.backend.head(tier.key(before.key))).version != info.version
    except NotFound:
        return True


def _serial(record: Record | None) -> int:
    return 0 if record is None else record.serial


def _live(record: Record | None) -> str:
    """The version of the object; ABSENT: there is none."""
    return ABSENT if record is None or record.removed else record.version


def _to_go(copy: Copy) -> Copy:
    return copy if copy.version == UNASKED else replace(copy, state=CopyState.OWED)


async def digest_of(source: Source) -> bytes:
    """SHA-256 of what is to be written."""
    if isinstance(source, bytes | memoryview):
        return await sha256_of(memoryview(source))
    return await asyncio.to_thread(_digest_of_file, source.path if isinstance(source, Watched) else source)


def _digest_of_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
