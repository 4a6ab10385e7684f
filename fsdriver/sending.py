"""Carrying out one row of the journal: the requests, the staging file, and what the cache keeps of it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fsdriver import names
from fsdriver.attributes import apply_record, to_metadata
from fsdriver.backends.base import ABSENT, Backend
from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.directories import Directories
from fsdriver.entry import Entry, Kind
from fsdriver.errors import FsdriverError
from fsdriver.journal import Journal
from fsdriver.pending import Action, Pending
from fsdriver.staging import Signature, Staging, signature

log = logging.getLogger(__name__)


class AttributeStore(Protocol):
    """What the uploader needs of the route that wrote a row: its attribute objects."""

    posix: bool
    """Attributes are kept on the store."""

    @property
    def memory(self) -> Directories:
        """What is remembered of its names; its lock makes a completion one step."""

    def directory_key(self, path: str) -> str:
        """Key prefix of a directory."""

    async def flush_attributes(self, directory: str) -> None:
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

    async def send(self, row: Pending) -> tuple[str, Signature | None]:
        if row.action is Action.DELETE:
            await self.backend.delete(row.key, if_version=row.base or None)
            self.counters.deleted += 1
            return ABSENT, None
        route = self.routes.get(row.root)
        described = row.record is not None and self.backend.capabilities.metadata and (route is None or route.posix)
        metadata = to_metadata(self._entry(row)) if described else None
        if row.action is Action.MARKER:
            if self.backend.capabilities.markers or not self.backend.capabilities.strong_versions:
                await self.backend.put(row.key, b"", metadata=metadata)
            return ABSENT, None
        if row.action is Action.COPY:
            assert row.source is not None
            info = await self.backend.copy(row.source, row.key, source_version=row.source_version, if_version=row.base)
            self.counters.copied += 1
            return info.version, None
        if row.staging is None:
            return (await self.backend.put(row.key, b"", metadata=metadata, if_version=row.base)).version, None
        return await self._put_file(row, Path(row.staging), metadata)

    async def _put_file(self, row: Pending, path: Path, metadata: dict[str, str] | None) -> tuple[str, Signature]:
        loop = asyncio.get_running_loop()
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if row.size > 1 << 20 or self.staging.opened(str(path)):
                # Writing dirty pages back re-arms the write fault: a later store through a mapping moves mtime.
                await loop.run_in_executor(None, os.fdatasync, descriptor)
            before = signature(descriptor)
            source = await loop.run_in_executor(None, path.read_bytes) if before[0] <= 1 << 20 else path
            info = await self.backend.put(row.key, source, metadata=metadata, if_version=row.base)
            self.counters.uploaded += 1
            self.counters.bytes += before[0]
            if signature(descriptor) != before or info.size != before[0]:
                self._send_again(row, os.fstat(descriptor).st_size)
            return info.version, before
        finally:
            os.close(descriptor)

    def _send_again(self, row: Pending, size: int) -> None:
        """The file moved while it was sent; a row that was replaced meanwhile stands for the newer bytes already."""
        with self.journal.transaction():
            current = self.journal.get(row.store, row.key)
            if current is not None and current.seq == row.seq:
                log.info("%s changed while it was uploaded; it is sent again", row.path)
                self.journal.write(replace(current, size=size))

    def _entry(self, row: Pending) -> Entry:
        return apply_record(Entry(Kind.FILE, size=row.size), row.record or {})

    def seal(self, key: str, version: str, path: Path) -> None:
        """Make an uploaded staging file the cache's copy of that version; a file somebody still has open is left alone."""
        try:
            lock = self.staging.lock_exclusive(path)
        except FileNotFoundError:
            return
        if lock is None:
            return
        size = os.fstat(lock).st_size
        os.close(lock)
        self.cache.seal(ObjectKey(self.backend.identity, key, version, size), path)

    def rekey(self, row: Pending, version: str) -> None:
        """The copy's bytes are in the cache under the key they were copied from: move them to their new key."""
        assert row.source is not None
        assert row.source_version is not None
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
