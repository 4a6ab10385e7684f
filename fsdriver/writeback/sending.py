"""Carrying out one row of the journal: the requests, the staging file, and what the cache keeps of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from fsdriver import names
from fsdriver.attributes import Record, apply_record, to_metadata
from fsdriver.backends.base import ABSENT, Backend, ObjectInfo
from fsdriver.backends.source import BEING_WRITTEN, Watched, check_settled
from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.entry import Entry, Kind
from fsdriver.errors import FsdriverError, NotFound, Stale, Unsettled
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import UNKNOWN, Action, Pending
from fsdriver.writeback.staging import Signature, Staging, digest_of, signature

log = logging.getLogger(__name__)

SMALL: Final = 1 << 20
"""Bytes up to which a file is read whole before it is sent."""
INLINE: Final = 256 << 10
"""Bytes up to which a file is read on the loop: it was written a moment ago, and a thread would cost more."""


TICK: Final = 0.01
"""Seconds within which two writes may have the same mtime (ext4, one tick of 100 Hz)."""


class Memory(Protocol):
    """What is remembered of a route's names."""

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Held while what is owed and what is remembered change in one step."""


class AttributeStore(Protocol):
    """What the uploader needs of the route that wrote a row: its attribute objects."""

    @property
    def memory(self) -> Memory:
        """What is remembered of its names; its lock makes a completion one step."""

    def directory_key(self, path: str) -> str:
        """Key prefix of a directory."""

    def own_record(self, directory: str) -> Record | None:
        """What is remembered of a directory's own attributes."""

    @property
    def lazy(self) -> bool:
        """Its attribute objects may follow later."""

    @property
    def marked(self) -> Mapping[str, float]:
        """Directories whose attribute object says so, and when they were last changed (`time.monotonic`)."""

    async def flush_attributes(self, directory: str, *, mark: bool) -> None:
        """Merge what the journal owes to one attribute object."""


@dataclass(slots=True)
class UploadCounters:
    """For ``status``."""

    uploaded: int = 0
    bytes: int = 0
    copied: int = 0
    deleted: int = 0
    conflicts: int = 0
    failures: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A row that was carried out.

    Attributes
    ----------
    row : Pending
    version : str
        What the store gave; "" none.
    signature : Signature or None
        What the staging file was like.
    carried : bool
        The object's own metadata say all that its record does.
    """

    row: Pending
    version: str
    signature: Signature | None
    carried: bool = False


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


class _MovedAway(Exception):
    """The bytes of a row are in another staging file by now; ``row`` tells which."""

    def __init__(self, row: Pending) -> None:
        super().__init__(row.path)
        self.row = row


class Sender:
    """Sends rows to one store; knows nothing of order, retries and waiting.

    Parameters
    ----------
    backend : Backend
    journal : Journal
    staging : Staging
    cache : DiskCache
        Uploaded files are sealed into it.
    """

    def __init__(self, backend: Backend, journal: Journal, staging: Staging, cache: DiskCache) -> None:
        self.backend = backend
        self.journal = journal
        self.staging = staging
        self.cache = cache
        self.counters = UploadCounters()
        self.routes: dict[str, AttributeStore] = {}
        self._uploads: dict[str, Upload] = {}
        self._unsealed: dict[Path, tuple[str, str, Signature]] = {}

    async def send(self, row: Pending, *, doubtful: bool = False) -> tuple[str, Signature | None]:
        """Carry a row out; returns the version the store has then, and the signature of the bytes that were sent.

        ``doubtful``: `send_now` has tried, and may have done it.

        Raises
        ------
        GivenUp
            `give_up_superseded` cut it off.
        """
        if row.action is Action.DELETE:
            await self.backend.delete(row.key, if_version=None if row.key.endswith("/") else row.base or None)
            self.counters.deleted += 1
            return ABSENT, None
        metadata = self._metadata(row)
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
            except _MovedAway as moved:
                row = moved.row

    def is_small(self, row: Pending) -> bool:
        """Whether `send_now` may do."""
        return not row.key.endswith("/") and (row.action is not Action.PUT or row.size <= INLINE)

    def send_now(self, row: Pending) -> Sent | None:
        """Carry a small row out in this thread, in one attempt; None: `send` has to, and nobody knows what has happened."""
        try:
            if row.action is Action.DELETE:
                return self._delete_now(row)
            if row.action is Action.COPY:
                return self._copy_now(row)
            return self._put_now(row) if row.action is Action.PUT and row.size <= INLINE else None
        except Exception as error:  # noqa: BLE001 - `send` meets it again, and knows what to do
            log.debug("%s: not sent at once: %r", row.path, error)
            return None

    def _delete_now(self, row: Pending) -> Sent | None:
        if not self.backend.delete_now(row.key, row.base or None):
            return None
        self.counters.deleted += 1
        return Sent(row, ABSENT, None)

    def _copy_now(self, row: Pending) -> Sent | None:
        if row.source is None or row.source_version is None or row.source == row.key:
            return None
        info = self.backend.copy_now(row.size, row.source, row.key, row.source_version, row.base)
        if info is None:
            return None
        self.counters.copied += 1
        return Sent(row, info.version, None)

    def _put_now(self, row: Pending) -> Sent | None:
        metadata = self._metadata(row)
        if row.staging is None:
            info = self.backend.put_now(row.key, b"", metadata, row.base)
            return None if info is None else Sent(row, info.version, None, self.carries(row))
        descriptor = os.open(row.staging, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = signature(descriptor)
            self._must_stand(row)
            data = self._one_state(row.staging, descriptor, before)
            info = self.backend.put_now(row.key, data, metadata, row.base)
            if info is None:
                return None
            self.counters.uploaded += 1
            self.counters.bytes += len(data)
            if signature(descriptor) != before:
                self._send_again(row, os.fstat(descriptor).st_size)
            return Sent(row, info.version, before, self.carries(row))
        except _MovedAway:
            return None
        finally:
            os.close(descriptor)

    def _one_state(self, path: str, descriptor: int, before: Signature) -> bytes:
        """All bytes of a small staging file, as they were at one moment. Raises Unsettled."""
        data = os.pread(descriptor, before[0], 0)
        opened = self.staging.opened(path)
        # Two readings that agree are what the file held between them, whatever its times say.
        again = data if opened is None else os.pread(descriptor, before[0] + 1, 0)
        if again != data or signature(descriptor) != before:
            raise Unsettled(BEING_WRITTEN)
        if opened is not None:
            # Nothing is written back, so a later store through a mapping may move no time: the bytes are looked at again.
            opened.digest = digest_of(data)
        return data

    def _metadata(self, row: Pending) -> dict[str, str] | None:
        return to_metadata(self._entry(row)) if row.kept and self.backend.capabilities.metadata else None

    def _must_stand(self, row: Pending) -> None:
        """Raise `_MovedAway` if the row's bytes are in another staging file by now: somebody writes to that one."""
        current = self.journal.get(row.store, row.key)
        if current is not None and current.seq == row.seq and current.staging != row.staging:
            raise _MovedAway(replace(row, staging=current.staging))

    def carries(self, row: Pending) -> bool:
        """Whether the object that was put for a row says in its metadata all that the row's record does."""
        record = row.record or {}
        return (
            row.action is Action.PUT
            and row.kept
            and self.backend.capabilities.metadata
            and not ("links" in record or "xattrs" in record)
            and ("target" not in record or "fsdriver-target" in to_metadata(self._entry(row)))
        )

    async def _put_file(
        self, row: Pending, path: Path, metadata: dict[str, str] | None, *, doubtful: bool
    ) -> tuple[str, Signature]:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._must_stand(row)
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
            self._must_stand(row)
            if before[0] <= SMALL:
                if before[0] <= INLINE:
                    data = self._one_state(str(path), descriptor, before)
                else:
                    data = await loop.run_in_executor(None, path.read_bytes)
                check_settled(source)
                info = await self.backend.put(row.key, data, metadata=metadata, if_version=row.base, doubtful=doubtful)
            else:
                request = loop.create_task(self.backend.put(row.key, source, metadata=metadata, if_version=row.base))
                upload = self._uploads[row.key] = Upload(row, descriptor, request)
                info = await self._result(upload, before[0], metadata)
            self.counters.uploaded += 1
            self.counters.bytes += before[0]
            if self._moved(row, descriptor, before) or info.size != before[0]:
                self._send_again(row, os.fstat(descriptor).st_size)
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
            stored = upload.row.base if lost else await self._stored_after(upload.row, size, metadata)
            raise GivenUp(stored) from error

    async def _stored_after(self, row: Pending, size: int, metadata: dict[str, str] | None) -> str | None:
        """What the store holds after an upload that was cut off: our bytes are known by their metadata."""
        if row.base is None or row.base == UNKNOWN:
            return None
        try:
            info = await self.backend.head(row.key)
        except NotFound:
            return row.base
        except FsdriverError as error:
            log.warning(
                "what the store holds after a cut-off upload is not known, the next change is made blindly: %s", error
            )
            return None
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

    def _send_again(self, row: Pending, size: int) -> None:
        """The file moved while it was sent; a row that was replaced meanwhile stands for the newer bytes already."""
        with self.journal.transaction():
            current = self.journal.get(row.store, row.key)
            if current is not None and current.seq == row.seq:
                log.info("%s changed while it was uploaded; it is sent again", row.path)
                self.journal.write(replace(current, size=size))

    def _entry(self, row: Pending) -> Entry:
        return apply_record(Entry(Kind.FILE, size=row.size), row.record or {})

    def seal_sent(self, sent: Sequence[Sent]) -> None:
        """Let the cache keep the bytes of what was carried out."""
        finished: list[tuple[ObjectKey, Path]] = []
        for one in sent:
            row = one.row
            if row.staging and self.staging.opened(row.staging) is None and not self.journal.uses(row.staging):
                finished += self._sealable(row.key, one.version, Path(row.staging))
            if row.action is Action.COPY:
                self.rekey(row, one.version)
        self.cache.seal_many(finished)

    def seal(self, key: str, version: str, path: Path) -> None:
        """Make an uploaded staging file the cache's copy of that version; one that another process has open, later."""
        self.cache.seal_many(self._sealable(key, version, path))

    def _sealable(self, key: str, version: str, path: Path) -> list[tuple[ObjectKey, Path]]:
        try:
            lock = self.staging.lock_exclusive(path)
        except FileNotFoundError:
            return []
        if lock is None:
            with contextlib.suppress(FileNotFoundError):
                self._unsealed[path] = key, version, _signature(path)
            return []
        size = os.fstat(lock).st_size
        os.close(lock)
        return [(ObjectKey(self.backend.identity, key, version, size), path)]

    def seal_left(self) -> None:
        """Seal what somebody had open when it was uploaded; what was written to since is in the hands of its writer."""
        for path, (key, version, before) in list(self._unsealed.items()):
            try:
                if self.journal.uses(str(path)) or _signature(path) != before:
                    del self._unsealed[path]
                elif not self.staging.is_open(path):
                    del self._unsealed[path]
                    self.seal(key, version, path)
            except FileNotFoundError:
                del self._unsealed[path]

    def rekey(self, row: Pending, version: str) -> None:
        """The copy's bytes are in the cache under the key they were copied from: move them to their new key."""
        assert row.source is not None
        if row.source_version is None:
            return
        old = ObjectKey(self.backend.identity, row.source, row.source_version, row.size)
        path = self.staging.name()
        if self.cache.contains(old) and self.cache.unseal(old, path, reader=None):
            self.cache.seal(ObjectKey(self.backend.identity, row.key, version, row.size), path)

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

    def keep_as(self, row: Pending) -> str:
        """Journal the bytes of a row under a name nobody else has; returns that path."""
        suffix = f".conflict-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%S')}-{row.seq}"
        directory, slash, name = row.path.rpartition("/")
        while len(os.fsencode(name + suffix)) > names.NAME_LIMIT:
            name = name[:-1]
        kept = f"{directory}{slash}{name}{suffix}"
        key = names.to_key(kept, f"{row.root}/" if row.root else "")
        self.journal.write(replace(row, key=key, path=kept, base=ABSENT, inflight=False, held=False))
        return kept

    def from_cache(self, row: Pending) -> Pending:
        """The source of a rename was overwritten by others: its bytes may still be in the cache."""
        assert row.source is not None
        assert row.source_version is not None
        sealed = ObjectKey(self.backend.identity, row.source, row.source_version, row.size)
        path = self.staging.name()
        if self.cache.contains(sealed) and self.cache.unseal(sealed, path, reader=None):
            return replace(row, action=Action.PUT, staging=str(path), source=None, source_version=None)
        return replace(row, action=Action.PUT, staging=None)


async def _past_the_tick(descriptor: int) -> None:
    """Wait until a further write is certain to move mtime: older kernels note times by the tick of a clock."""
    if time.time() - os.fstat(descriptor).st_mtime < TICK:
        await asyncio.sleep(TICK)


def _signature(path: Path) -> Signature:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
