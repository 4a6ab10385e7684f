"""Carrying out one row of the journal on the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from fsdriver.attributes import INODE
from fsdriver.backends.base import ABSENT, ObjectInfo
from fsdriver.backends.multipart import Part, part_size_for, tag_of_parts
from fsdriver.backends.source import Watched, check_settled, md5_of, piece
from fsdriver.errors import FsdriverError, NotFound, Stale, Unsettled
from fsdriver.writeback.outgoing import INLINE, MovedAway, Outgoing
from fsdriver.writeback.pending import UNKNOWN, Action, Pending
from fsdriver.writeback.staging import Signature, signature

log = logging.getLogger(__name__)

SMALL: Final = 1 << 20
"""Bytes up to which a file is read whole before it is sent."""
ATTEMPTS: Final = 5
"""To replace what is there, each on the condition that it is still there."""
TICK: Final = 0.01
"""Seconds within which two writes may have the same mtime (ext4, one tick of 100 Hz)."""


class GivenUp(Exception):
    """What was being uploaded is owed no more, and the upload was cut off.

    Attributes
    ----------
    stored : str or None
        Version the store holds now ("" none), as a later row's ``base``; None where that is not known.
    """

    def __init__(self, stored: str | None) -> None:
        super().__init__(stored)
        self.stored = stored


@dataclass(slots=True)
class Upload:
    """The upload of a large file, under way.

    Attributes
    ----------
    row : Pending
    descriptor : int
        Of the staging file; -1 once it was let go.
    request : asyncio.Task
    """

    row: Pending
    descriptor: int
    request: asyncio.Task[ObjectInfo]

    @property
    def given_up(self) -> bool:
        """Its bytes are owed no more."""
        return self.descriptor < 0

    def let_go(self) -> None:
        """Close the staging file: if it was removed, its disk space is free from now on."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Sender:
    """Sends rows to one store; knows nothing of order, retries and waiting.

    Parameters
    ----------
    outgoing : Outgoing
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.backend = outgoing.backend
        self.journal = outgoing.journal
        self.staging = outgoing.staging
        self.counters = outgoing.counters
        self._uploads: dict[str, Upload] = {}

    async def send(self, row: Pending, *, doubtful: bool = False) -> tuple[str, Signature | None]:
        """Carry a row out; returns the version the store has then, and the signature of the bytes that were sent.

        ``doubtful``: an `ImmediateSender` has tried, and may have done it; so may an attempt before that failed.

        Raises
        ------
        GivenUp
            `give_up_superseded` cut it off.
        Unsettled
            Others write to the key again and again.
        """
        doubtful = doubtful or row.doubtful
        if not self.outgoing.is_blind(row):
            return await self._send(row, doubtful=doubtful)
        for _ in range(ATTEMPTS):
            try:
                stored = (await self.backend.head(row.key)).version
            except NotFound:
                stored = ABSENT
            if row.action is Action.DELETE and stored == ABSENT:
                return ABSENT, None
            try:
                return await self._send(replace(row, base=stored), doubtful=doubtful)
            except Stale:
                if row.action is Action.COPY and not await self.source_stands(row):
                    raise
        raise Unsettled("others are writing to it")

    async def _send(self, row: Pending, *, doubtful: bool) -> tuple[str, Signature | None]:
        if row.action is Action.DELETE:
            await self.backend.delete(row.key, if_version=None if row.key.endswith("/") else row.base or None)
            self.counters.deleted += 1
            return ABSENT, None
        metadata = self.outgoing.metadata(row)
        if row.action is Action.MARKER:
            if self.backend.capabilities.markers or not self.backend.capabilities.strong_versions:
                await self.backend.put(row.key, b"", metadata=metadata)
            return UNKNOWN, None
        if row.action is Action.COPY:
            assert row.source is not None
            if row.source == row.key:
                # Renamed away and back before either was carried out.
                return await self._stays(row), None
            try:
                info = await self.backend.copy(
                    row.source,
                    row.key,
                    source_version=row.source_version,
                    if_version=row.base,
                    size=row.size,
                    doubtful=doubtful,
                )
            except NotFound as error:
                raise Stale("what was renamed or copied had been removed by someone else", row.path) from error
            self.counters.copied += 1
            return info.version, None
        if row.staging is None:
            put = self.backend.put(row.key, b"", metadata=metadata, if_version=row.base, doubtful=doubtful)
            return (await put).version, None
        while True:
            try:
                return await self._put_file(row, Path(row.staging or ""), metadata, doubtful=doubtful)
            except MovedAway as moved:
                row = moved.row

    async def _put_file(
        self, row: Pending, path: Path, metadata: dict[str, str] | None, *, doubtful: bool
    ) -> tuple[str, Signature]:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self.outgoing.must_stand(row)
            raise
        upload: Upload | None = None
        try:
            opened = self.staging.opened(str(path)) is not None
            if opened and row.size > INLINE:
                await _past_the_tick(descriptor)
            before = signature(descriptor)
            if before[0] > INLINE and (opened or before[0] > SMALL):
                # Writing dirty pages back re-arms the write fault: a later store through a mapping moves mtime. One that
                # came meanwhile has moved it already, and leaves a page of which no further store would be noticed.
                await loop.run_in_executor(None, os.fdatasync, descriptor)
            source = Watched(path, partial(self._moved, row, descriptor, before))
            check_settled(source)
            # After the signature was taken: whoever moved the row away before may have written already.
            self.outgoing.must_stand(row)
            if before[0] <= SMALL:
                if before[0] <= INLINE:
                    data = self.outgoing.one_state(str(path), descriptor, before)
                else:
                    data = await loop.run_in_executor(None, path.read_bytes)
                check_settled(source)
                self.journal.sums.compare(row, descriptor, before, data)
                info = await self.backend.put(row.key, data, metadata=metadata, if_version=row.base, doubtful=doubtful)
            else:
                await loop.run_in_executor(None, self.journal.sums.compare, row, descriptor, before)
                request = loop.create_task(
                    self.backend.put(row.key, source, metadata=metadata, if_version=row.base, doubtful=doubtful)
                )
                upload = self._uploads[row.key] = Upload(row, descriptor, request)
                info = await self._result(upload, before[0], metadata)
            self.counters.uploaded += 1
            self.counters.bytes += before[0]
            if self._moved(row, descriptor, before) or info.size != before[0]:
                self.outgoing.send_again(row, os.fstat(descriptor).st_size)
            return info.version, before
        finally:
            if upload is None:
                os.close(descriptor)
            else:
                del self._uploads[row.key]
                upload.let_go()

    def _moved(self, row: Pending, descriptor: int, before: Signature) -> bool:
        """Whether a staging file was written to; of one that was let go nobody wants to know."""
        upload = self._uploads.get(row.key)
        return (upload is None or not upload.given_up) and signature(descriptor) != before

    async def _result(self, upload: Upload, size: int, metadata: dict[str, str] | None) -> ObjectInfo:
        try:
            return await upload.request
        except (asyncio.CancelledError, FsdriverError, OSError) as error:
            task = asyncio.current_task()
            if not upload.given_up or (task is not None and task.cancelling()):
                raise
            lost = isinstance(error, Stale)
            stored = upload.row.base if lost else await self.stored_after(upload.row, size, metadata)
            raise GivenUp(stored) from error

    async def stored_after(self, row: Pending, size: int, metadata: dict[str, str] | None) -> str | None:
        """What the store holds after an upload without an answer: our bytes are known by their metadata."""
        if row.base is None or row.base == UNKNOWN:
            return None
        try:
            info = await self.backend.head(row.key)
        except NotFound:
            return row.base
        except FsdriverError as error:
            # A conflict with ourselves costs a second name; a change made blindly may cost another writer's bytes.
            log.warning("what the store holds after an upload without an answer is not known: %s", error)
            return row.base
        if info.version == row.base or info.size != size:
            return row.base
        if metadata is None or info.metadata is None:
            return None
        return info.version if dict(info.metadata) == metadata else row.base

    def give_up_superseded(self) -> None:
        """Cut off uploads of large files that were removed or replaced meanwhile, and free their disk space.

        One that cannot be stopped for certain goes on from memory, and what it stores is known when it ends.
        """
        for upload in list(self._uploads.values()):
            row = upload.row
            current = self.journal.get(row.store, row.key)
            if upload.given_up or (current is not None and current.staging == row.staging):
                continue
            log.info("%s was removed or replaced while it was uploaded; that upload is given up", row.path)
            upload.let_go()
            if self.backend.stops_when_cancelled(row.size):
                upload.request.cancel()

    async def was_interrupted(self, row: Pending) -> bool:
        """Whether a row lost to what the upload of a dead process had stored: its bytes, with attributes that were changed since.

        It is owed on the condition of that version then, and sent once more.
        """
        if row.action is not Action.PUT or row.staging is None:
            return False
        path, metadata = Path(row.staging), self.outgoing.metadata(row) or {}
        try:
            info = await self.backend.head(row.key)
            ours = await self.backend.is_made_of(info, path)
            if ours is None:
                ours = info.version == await asyncio.to_thread(self._version_of, path, info.size)
        except (FsdriverError, OSError) as error:
            log.debug("%s: what the store holds is not known: %s", row.path, error)
            return False
        if not ours or not metadata or (info.metadata or {}).get(INODE) != metadata[INODE]:
            return False
        self.journal.rebase(row, info.version)
        return True

    def _version_of(self, path: Path, size: int) -> str | None:
        """The ETag that S3 gives to a file of this size, sent as `Backend.put` does; None if it has another."""
        if os.stat(path).st_size != size:
            return None
        if size <= self.backend.put_limit or not self.backend.capabilities.multipart:
            return md5_of(path)
        step = part_size_for(size, self.backend.part_size)
        starts = enumerate(range(0, size, step), 1)
        return tag_of_parts(
            [Part(at, md5_of(bytes(piece(path, start, min(step, size - start))))) for at, start in starts]
        )

    async def source_stands(self, row: Pending) -> bool:
        """Whether the object a lost copy was to read is still the version that was renamed."""
        assert row.source is not None
        try:
            return (await self.backend.head(row.source)).version == row.source_version
        except FsdriverError:
            return False

    async def _stays(self, row: Pending) -> str:
        """The version of a file that is to be where it is. Raises Stale if others changed it."""
        try:
            version = (await self.backend.head(row.key)).version
        except NotFound:
            version = ABSENT
        if version != row.source_version:
            raise Stale("the file was changed by someone else meanwhile; read it again", row.path)
        return version


async def _past_the_tick(descriptor: int) -> None:
    """Wait until a further write is certain to move mtime: older kernels note times by the tick of a clock."""
    if time.time() - os.fstat(descriptor).st_mtime < TICK:
        await asyncio.sleep(TICK)


def local_failure(row: Pending, error: OSError) -> FsdriverError:
    """What the host's own disk did not do, and what to do about it."""
    if isinstance(error, FileNotFoundError) and str(error.filename) == row.staging:
        text = f"the bytes written here are gone: {row.staging} was deleted; write the file again, or remove it"
        return FsdriverError(text, row.path)
    return FsdriverError(f"the local disk failed: {error}", row.path)
