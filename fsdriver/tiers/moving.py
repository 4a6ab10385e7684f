"""Making a copy in another tier: copy, verify, switch in the catalog, then let go of those that have to leave.

Every step can be the last one of a process: the move is owed until the switch, a copy whose maker died before it is known again
by its marks, and copies that have to leave are owed from the switch on. There is always a verified copy.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fsdriver.backends.model import ABSENT, ObjectInfo
from fsdriver.errors import Corrupt, FsdriverError, Stale, Unsupported
from fsdriver.tiers.finding import Finder, good, is_away
from fsdriver.tiers.reading import TieredReader, sha256_of
from fsdriver.tiers.records import UNASKED, Copy, CopyState, Move, Record
from fsdriver.tiers.removing import Remover
from fsdriver.tiers.tier import Tier, marks, modified_ns, version_of, without_marks

log = logging.getLogger(__name__)

IN_MEMORY: Final = 8 << 20
"""Bytes of the largest object that is not written to a file on its way."""
STEP: Final = 8 << 20
STEPS_AT_ONCE: Final = 4
LONGEST_PAUSE: Final = 3600.0
"""Seconds between two tries of a move that fails."""


@dataclass(slots=True)
class Moves:
    """Counted for ``status``."""

    done: int = 0
    bytes: int = 0
    pointless: int = 0
    failed: int = 0


class Mover:
    """See the module.

    Parameters
    ----------
    finder, reader, remover
    scratch : Path
        Directory for objects on their way.
    clock : callable
    """

    def __init__(
        self,
        finder: Finder,
        reader: TieredReader,
        remover: Remover,
        scratch: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._finder = finder
        self._catalog = finder.catalog
        self._reader = reader
        self._remover = remover
        self._scratch = scratch
        self._clock = clock
        self.moves = Moves()

    async def carry_out(self, move: Move) -> bool:
        """Carry out one move; whether it is done with (else it is owed for later, with what went wrong)."""
        try:
            done = await self._move(move)
        except FsdriverError as error:
            await self._postpone(move, error)
            return False
        self.moves.done += done
        self.moves.bytes += move.size if done else 0
        self.moves.pointless += not done
        return True

    async def insist(self, move: Move) -> bool:
        """Carry out a move that somebody waits for, and say what fails; what may yet succeed stays owed.

        Returns
        -------
        bool
            False: the object was changed meanwhile, there is nothing to be moved.
        """
        await self._catalog.owe(self._finder.stack, [move])
        try:
            done = await self._move(move)
        except FsdriverError as error:
            if is_away(error):
                await self._postpone(move, error)
            else:
                await self._end(move)
            raise
        self.moves.done += done
        self.moves.bytes += move.size if done else 0
        return done

    async def _postpone(self, move: Move, error: FsdriverError) -> None:
        failures = move.failures + 1
        pause = min(2.0**failures, LONGEST_PAUSE)
        self.moves.failed += 1
        told = str(error)
        if told != move.error:
            log.warning("%s: not moved to tier %s, tried again later: %s", move.key, move.target, told)
        later = replace(move, failures=failures, not_before=self._clock() + pause, error=told)
        await self._catalog.fail_move(self._finder.stack, later)

    async def _move(self, move: Move) -> bool:
        record = await self._catalog.get(self._finder.stack, move.key)
        target = self._finder.tiers.get(move.target)
        if target is None or record is None or record.version != move.version:
            await self._end(move)
            return False
        held = record.copies.get(target.name)
        if held is not None and held.state is CopyState.GOOD:
            return await self._switch(record, move, await self._confirmed(record, target, held, move.leaves))
        if not target.writable:
            raise Unsupported(f"tier {target.name} is only read", move.key)
        info, sha256 = await self._copy(record, target, held)
        copy = Copy(info.version, CopyState.GOOD, self._clock())
        return await self._switch(replace(record, sha256=sha256), move, copy)

    async def _end(self, move: Move) -> None:
        await self._catalog.end_move(self._finder.stack, move)

    async def _switch(self, record: Record, move: Move, copy: Copy) -> bool:
        """Say in the catalog that the copy is there, and that others have to go."""
        stack = self._finder.stack
        while True:
            made = record.with_copy(move.target, copy)
            for name in move.leaves:
                left = made.copies.get(name)
                if left is not None and name != made.pin and left.state is not CopyState.OWED:
                    made = made.with_copy(name, replace(left, state=CopyState.OWED))
            done = await self._catalog.swap(stack, made, record.serial, done=move)
            if done is not None:
                await self._remover.remove(done)
                return True
            now = await self._catalog.get(stack, move.key)
            if now is None or now.version != move.version:
                # It was replaced or removed meanwhile; the copy is of no use, and nobody else knows of it.
                await self._discard(move, copy, now)
                await self._end(move)
                return False
            record = replace(now, sha256=now.sha256 or record.sha256)

    async def _discard(self, move: Move, copy: Copy, now: Record | None) -> None:
        if now is not None and move.target in now.copies and now.copies[move.target].version == copy.version:
            return
        owed = {move.target: replace(copy, state=CopyState.OWED)}
        await self._remover.remove(Record(move.key, "", 0, 0, owed))

    # -- copying -------------------------------------------------------------------------------------------------------

    async def _copy(self, record: Record, target: Tier, held: Copy | None) -> tuple[ObjectInfo, bytes | None]:
        """Write the copy, and see that its bytes are right; its attributes, and the checksum."""
        condition = ABSENT if held is None or held.version == UNASKED else held.version
        if record.key.endswith("/"):  # a directory: there is nothing to it but that it is there
            return await target.backend.put(target.key(record.key), b""), None
        if (info := await self._copied_by_store(record, target, condition)) is not None:
            return info, record.sha256
        if record.size <= IN_MEMORY:
            told, data, current = await self._reader.fetch(record.key, IN_MEMORY)
            if current.version != record.version:
                raise Stale("it was changed by someone else meanwhile", record.key)
            sha256 = await sha256_of(data)
            self._must_be(record, sha256)
            return await self._put(record, target, condition, told, data, sha256), sha256
        return await self._copy_by_file(record, target, condition)

    async def _copied_by_store(self, record: Record, target: Tier, condition: str) -> ObjectInfo | None:
        """A copy inside one container, made by the service; None where it is another's."""
        for tier, copy in good(record, self._finder.tiers):
            same = tier.backend.identity == target.backend.identity
            able = tier.backend.capabilities
            if same and able.server_copy and able.metadata and not able.directories:  # those have roots
                told = await tier.backend.head(tier.key(record.key))
                marked = dict(without_marks(told.metadata) or {}) | marks(record.version, record.mtime_ns)
                return await target.backend.copy(
                    tier.key(record.key), target.key(record.key), source_version=copy.version, if_version=condition,
                    metadata=marked, size=record.size,
                )  # fmt: skip
        return None

    async def _copy_by_file(self, record: Record, target: Tier, condition: str) -> tuple[ObjectInfo, bytes]:
        told, current = await self._reader.head(record.key, target)
        if current.version != record.version:
            raise Stale("it was changed by someone else meanwhile", record.key)
        descriptor, name = tempfile.mkstemp(prefix="move-", dir=self._scratch)
        try:
            await self._fill(record, descriptor)
            sha256 = await asyncio.to_thread(_digest, descriptor)
            self._must_be(record, sha256)
            return await self._put(record, target, condition, told, Path(name), sha256), sha256
        finally:
            os.close(descriptor)
            os.unlink(name)

    async def _fill(self, record: Record, descriptor: int) -> None:
        steps = iter(range(0, record.size, STEP))

        async def work() -> None:
            for start in steps:
                end = min(start + STEP, record.size)
                data = await self._reader.get(record.key, start, end, record.version)
                if len(data) != end - start:
                    raise Corrupt(f"{len(data)} bytes instead of {end - start}", record.key)
                await asyncio.to_thread(os.pwrite, descriptor, data, start)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(STEPS_AT_ONCE):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    @staticmethod
    def _must_be(record: Record, sha256: bytes) -> None:
        if record.sha256 not in {None, sha256}:
            raise Corrupt("the bytes are not those that were stored", record.key)

    async def _put(
        self, record: Record, target: Tier, condition: str, told: ObjectInfo, source: memoryview | Path, sha256: bytes
    ) -> ObjectInfo:
        keeps = target.backend.capabilities.metadata
        metadata = dict(without_marks(told.metadata) or {}) | marks(record.version, record.mtime_ns) if keeps else None
        place = target.key(record.key)
        try:
            info = await target.backend.put(place, source, metadata=metadata, if_version=condition)
        except Stale:
            info = await target.backend.head(place)
            if version_of(info) != record.version or modified_ns(info) != record.mtime_ns or info.size != record.size:
                await self._finder.settle(record.key)
                raise
            # An earlier try of this move, whose end nobody saw.
        if not target.backend.capabilities.checks_uploads or info.size != record.size:
            await self._read_back(record, target, info, sha256)
        return info

    async def _confirmed(self, record: Record, target: Tier, held: Copy, leaves: Sequence[str]) -> Copy:
        """A copy that is known already, before others go: it is there, and its bytes were compared once."""
        if not any(name in record.holders() for name in leaves):
            return held
        info = await target.backend.head(target.key(record.key))
        if info.version != held.version:
            await self._finder.settle(record.key)
            raise Stale("its copy was changed by someone else meanwhile", record.key)
        if held.checked:
            return held
        expected = record.sha256
        if expected is None:
            leaving = next(self._finder.tiers[name] for name in leaves if name in record.holders())
            expected = await self._digest_in(record, leaving, record.copies[leaving.name].version)
        if await self._digest_in(record, target, held.version) != expected:
            raise Corrupt(f"the copy in tier {target.name} has other bytes than the others", record.key)
        return replace(held, checked=self._clock())

    async def _digest_in(self, record: Record, tier: Tier, version: str) -> bytes:
        digest = hashlib.sha256()
        for start in range(0, record.size, STEP):
            data = await tier.backend.get(tier.key(record.key), start, min(start + STEP, record.size), version)
            await asyncio.to_thread(digest.update, data)
        return digest.digest()

    async def _read_back(self, record: Record, target: Tier, info: ObjectInfo, sha256: bytes) -> None:
        if await self._digest_in(record, target, info.version) != sha256:
            await self._remover.remove(Record(record.key, "", 0, 0, {target.name: Copy(info.version, CopyState.OWED)}))
            raise Corrupt(f"the copy in tier {target.name} had other bytes than were sent, and was removed", record.key)


def _digest(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").digest()
