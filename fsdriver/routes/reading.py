"""Reading files of one route: from staging while they are pending, else through the cache."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from fsdriver.backends.store import Store
from fsdriver.cache import Fetch, FetchNow, ObjectKey, Reader, write_all
from fsdriver.entry import Entry, Kind
from fsdriver.errors import IsDirectory, NotFound, Stale, Unsupported
from fsdriver.metadata.entries import Defaults
from fsdriver.routes.changes import NameChanges
from fsdriver.routes.services import Policy, Services
from fsdriver.runtime import on_loop
from fsdriver.writeback.staging import StagedFile, StagedReader

AnyReader: TypeAlias = Reader | StagedReader


class Reading(NameChanges):
    """Everything that reads bytes of a route."""

    def __init__(self, backend: Store, prefix: str, policy: Policy, defaults: Defaults, services: Services) -> None:
        super().__init__(backend, prefix, policy, defaults, services)
        self._same_bytes: OrderedDict[tuple[int, str], str] = OrderedDict()

    def content(self, entry: Entry) -> str | None:
        """Identity of a file's bytes that outlives their upload: it changes when the bytes do, by us or by others."""
        name = entry.staging or entry.version
        return None if name is None else self._same_bytes.get((entry.ino, name), name)

    def staged_content(self, entry: Entry, staged: StagedFile) -> str:
        """`content` of what was written to a staging file."""
        return self._same_bytes.get((entry.ino, str(staged.path)), str(staged.path))

    def content_key(self, path: str, entry: Entry) -> ObjectKey:
        """Where the cache keeps the bytes of an entry."""
        if entry.version is None:
            raise Stale("its bytes are not in the store yet", path)
        return self.services.cache.key(self.backend.identity, entry.key or self.key(path), entry.version, entry.size)

    async def open(
        self, path: str, entry: Entry | None = None, *, in_place: bool = False, to_keep: bool = False
    ) -> AnyReader:
        """A reader of one version of a file; close it.

        Parameters
        ----------
        in_place : bool
            For who writes files where they lie: what is pending is read as it is now, not as it was closed.
        to_keep : bool
            The bytes are to come into this cache, also if another user's has them.

        Raises
        ------
        NotFound, IsDirectory
        Stale
            It is pending, and another process is writing to it again.
        Unsupported
            FIFOs, sockets and devices have no bytes here.
        """
        for _ in range(3):
            if entry is None:
                entry = await self.stat(path)
            if entry.kind is Kind.DIRECTORY:
                raise IsDirectory("is a directory", path)
            if entry.kind is not Kind.FILE:
                raise Unsupported(f"is a {entry.kind}, which has no bytes in the store", path)
            if entry.staging is None:
                reader = self._reader(path, entry, self.services.cache.reader)
                return reader if to_keep or reader.complete else await self._borrowed(reader)
            try:
                return StagedReader(Path(entry.staging), None if in_place else entry.size)
            except FileNotFoundError:
                # Uploaded and sealed away a moment ago.
                entry = await self._settled_entry(path, entry)
        raise NotFound("its staging file is gone; it may have been removed by hand", path)

    async def _borrowed(self, reader: Reader) -> Reader:
        """A reader of the same bytes in another user's cache instead of one that would have to fetch them."""
        lenders = self.services.lenders
        if lenders is None:
            return reader
        try:
            file = await lenders.borrow(reader.key)
        except BaseException:  # a cancelled open leaves nothing either
            reader.close()
            raise
        if file is None:
            return reader
        reader.close()
        return self.services.cache.lent(reader.key, file)

    def open_later(self, path: str, entry: Entry) -> Reader:
        """As `open` of a file whose bytes are in the store, but the cache is not asked before the first read."""
        return self._reader(path, entry, self.services.cache.later)

    def _reader(self, path: str, entry: Entry, make: Callable[[ObjectKey, Fetch, FetchNow | None], Reader]) -> Reader:
        key = self.content_key(path, entry)
        self.backend.used(key.key)

        async def fetch(start: int, end: int) -> memoryview:
            where, seen = (key.key, key.version), set[tuple[str, str]]()
            while True:
                try:
                    return await self.backend.get(where[0], start, end, where[1])
                except (Stale, NotFound) as error:
                    seen.add(where)
                    copied = self.services.uploader.keeper.next_place(*where)
                    if copied is not None and copied not in seen:
                        # A rename was carried out since the file was opened: the same bytes are there now.
                        where = copied
                        continue
                    # Another writer was there: who looks the name up again must not be told of this version once more.
                    self.memory.forget_entry(path)
                    if isinstance(error, NotFound):
                        raise Stale("the version that was opened has been removed from the store", path) from error
                    raise

        def now() -> memoryview | None:
            return self.backend.get_now(key.key, key.size, key.version)

        return make(key, fetch, now if self.backend.reads_now else None)

    def at_hand(self, path: str, entry: Entry) -> bytes | None:
        """All bytes of a small file, if this process has them in memory or the cache on its disk."""
        if entry.kind is not Kind.FILE or entry.staging is not None or entry.version is None:
            return None
        return self.services.cache.at_hand(self.content_key(path, entry))

    def remember(self, reader: AnyReader, data: bytes) -> None:
        """All bytes of a file were read: keep them in memory if it is small."""
        if isinstance(reader, Reader):
            self.services.cache.remember(reader.key, data)

    async def read(self, path: str, start: int = 0, end: int | None = None) -> memoryview:
        """Bytes ``start`` to ``end`` (exclusive) of a file, from the cache where it has them."""
        with await self.open(path) as reader:
            stop = reader.size if end is None else min(end, reader.size)
            wanted = max(0, stop - start)
            data = reader.read_now(start, wanted)
            return memoryview(await reader.read(start, wanted) if data is None else data)

    async def materialize(self, path: str, entry: Entry) -> Path:
        """A copy of a file's bytes in staging."""
        target = self.services.staging.name()
        with await self.open(path, entry) as reader:
            await on_loop()
            await reader.wait_complete()
            if reader.path is not None and reader.fileno() is not None:
                self.services.staging.snapshot(reader.path, target)
                return target
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                for offset in range(0, reader.size, 8 << 20):
                    write_all(descriptor, await reader.read(offset, min(8 << 20, reader.size - offset)), offset)
                    await asyncio.sleep(0)  # what is here already is read without one
            except BaseException:  # a cancelled copy leaves nothing either
                self.services.staging.remove(target)
                raise
            finally:
                os.close(descriptor)
        return target

    async def _settled_entry(self, path: str, entry: Entry) -> Entry:
        """The entry of a file whose staging file is gone because the store has it."""
        now = self.cached(path)
        if now is None or now.staging == entry.staging:
            self.memory.forget_entry(path)
            now = await self.stat(path, fresh=True)
        return now
