"""One route: a path prefix of the tree, the store behind it, its policy, and the operations every face calls.

Paths are relative to the route, without leading or trailing ``/``; ``""`` is the route's root. They are *names* (C3), never
keys. Coroutines follow `fsdriver.runtime`: warm ones finish in the calling thread. Every change is visible to all faces of
the process when its coroutine returns; with ``write = "through"`` the tiers have it then, with ``"back"`` the journal.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from fsdriver.attributes import to_metadata
from fsdriver.backends.base import ABSENT, Backend
from fsdriver.cache import ObjectKey, Reader
from fsdriver.changes import NameChanges
from fsdriver.directories import split
from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import AlreadyExists, IsDirectory, NotDirectory, NotFound, Stale, Unsupported
from fsdriver.journal import Action, Pending
from fsdriver.lookup import Defaults, Uncommitted
from fsdriver.renaming import exchange_files
from fsdriver.runtime import on_loop
from fsdriver.services import Policy, Services
from fsdriver.staging import StagedFile, StagedReader, signature

AnyReader: TypeAlias = Reader | StagedReader
REMEMBERED_UPLOADS: Final = 200_000
"""Uploads of which the route still knows which staged bytes they were."""


class Route(NameChanges):
    """See the module.

    Parameters
    ----------
    path : str
        Where it hangs in the tree, ``"/"`` for a URL mounted alone.
    backend, prefix
        The store and the key prefix of the route's root.
    """

    def __init__(
        self, path: str, backend: Backend, prefix: str, policy: Policy, defaults: Defaults, services: Services
    ) -> None:
        super().__init__(backend, prefix, policy, defaults, services)
        self.path = path
        self._same_bytes: OrderedDict[tuple[int, str], str] = OrderedDict()

    # -- reading -----------------------------------------------------------------------------------------------------

    def content_key(self, path: str, entry: Entry) -> ObjectKey:
        """Where the cache keeps the bytes of an entry (C1)."""
        if entry.version is None:
            raise Stale("its bytes are not in the store yet", path)
        return ObjectKey(self.backend.identity, entry.key or self.key(path), entry.version, entry.size)

    def content(self, entry: Entry) -> str | None:
        """Identity of a file's bytes that outlives their upload: it changes when the bytes do, by us or by others."""
        name = entry.staging or entry.version
        return None if name is None else self._same_bytes.get((entry.ino, name), name)

    async def open(self, path: str, entry: Entry | None = None) -> AnyReader:
        """A reader of one version of a file; close it.

        Raises
        ------
        NotFound, IsDirectory
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
                return self._reader(path, entry)
            try:
                return StagedReader(Path(entry.staging))
            except FileNotFoundError:
                # Uploaded and sealed away a moment ago.
                entry = await self._settled_entry(path, entry)
        raise NotFound("its staging file is gone; it may have been removed by hand", path)

    def _reader(self, path: str, entry: Entry) -> Reader:
        key = self.content_key(path, entry)

        async def fetch(start: int, end: int) -> memoryview:
            try:
                return await self.backend.get(key.key, start, end, key.version)
            except (Stale, NotFound):
                # Another writer was there: who looks the name up again must not be told of this version once more.
                self.memory.forget_entry(path)
                raise

        return self.services.cache.reader(key, fetch)

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
                    os.pwrite(descriptor, await reader.read(offset, min(8 << 20, reader.size - offset)), offset)
            finally:
                os.close(descriptor)
        return target

    async def exchange(self, first: str, one: Entry, second: str, other: Entry) -> None:
        """Swap two names. Raises Unsupported for directories."""
        await exchange_files(self, first, one, second, other)

    # -- publishing ----------------------------------------------------------------------------------------------------

    async def publish(
        self, path: str, source: Path | bytes, *, base: str | None = None, entry: Entry | None = None
    ) -> Entry:
        """Make ``source`` the content of ``path``, atomically; a Path (in staging) is consumed.

        Parameters
        ----------
        base : str or None
            None replaces whatever is there; ABSENT ("") demands a new name; else the version expected there.
        entry : Entry, optional
            Supplies mode, owner and xattrs; by default those of the existing file, or the route's.

        Raises
        ------
        AlreadyExists
            ``base`` is ABSENT and the name is taken.
        Stale
            Another version is there than ``base`` says.
        """
        self.must_be_writable(path)
        before = self.cached(path)
        if before is not None and before.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        self._ensure_parents(path)
        if self.policy.write == "back" and base is None:
            return await self._publish_back(path, source, entry or before)
        await on_loop()
        await self._settle_key(path)
        record = await self.record(path)
        made = entry or before or self._new_file(path)
        made = replace(made, kind=Kind.FILE, staging=None, key=None, links=(), mtime_ns=time.time_ns())
        carried = self.posix and (entry is not None or record is not None)
        try:
            info = await self.backend.put(
                self.key(path), source, metadata=to_metadata(made) if carried else None, if_version=base
            )
        except Stale as error:
            if base == ABSENT:
                raise AlreadyExists("the name is taken", path) from error
            raise
        if isinstance(source, Path):
            self.services.uploader.seal(info.key, info.version, source)
            self.services.staging.remove(source)
        made = replace(
            made, size=info.size, version=info.version, mtime_ns=info.mtime_ns, atime_ns=info.mtime_ns, ctime_ns=info.mtime_ns
        )  # fmt: skip
        if carried:
            self.owe_attributes({path: made})
            await self.services.uploader.wait(
                lambda: self.owes_attributes(*split(path)), lambda _: False, self.policy.timeout
            )
        self.memory.change(path, made)
        await self.announce([path])
        return made

    async def _publish_back(self, path: str, source: Path | bytes, like: Entry | None) -> Entry:
        staged = self.services.staging.new(None)
        try:
            if isinstance(source, Path):
                self.services.staging.release(staged)
                os.replace(source, staged.path)
                staged = self.services.staging.adopt(staged.path, None, inherited=False)
            else:
                os.pwrite(staged.descriptor, source, 0)
            made = replace(
                like or self._new_file(path), kind=Kind.FILE, version=None, staging=str(staged.path), links=()
            )
            self.uncommitted[path] = Uncommitted(made, None)
            made = await self.commit(path, staged)
        finally:
            await self.release(path if path in self.uncommitted else None, staged)
        await self.announce([path])
        return made

    def _new_file(self, path: str) -> Entry:
        d, now = self.defaults, time.time_ns()
        return Entry(
            Kind.FILE, mode=d.mode, uid=d.uid, gid=d.gid, atime_ns=now, mtime_ns=now, ctime_ns=now, ino=self.inode(self.key(path))
        )  # fmt: skip

    async def _settle_key(self, path: str) -> None:
        """Wait until nothing older is pending for a key that is about to be written directly."""
        key, identity = self.key(path), self.backend.identity
        if self.journal.get(identity, key) is not None:
            await self.services.uploader.wait(
                lambda: self.journal.get(identity, key) is not None, lambda failed: failed == key, self.policy.timeout
            )

    # -- files written in place ------------------------------------------------------------------------------------------

    def new_file(self) -> StagedFile:
        """An empty staging file for a name that `create` will give it."""
        return self.services.staging.new(ABSENT)

    async def create(self, path: str, staged: StagedFile, changes: Changes, *, exclusive: bool = False) -> Entry:
        """Show a new, empty, open file to this process; the first `commit` tells the others and the store.

        Raises
        ------
        AlreadyExists
            ``exclusive`` and the name is taken, or a directory has it.
        """
        self.must_be_writable(path)
        parent = split(path)[0]
        if parent and (above := self.cached(parent)) is not None and above.kind is not Kind.DIRECTORY:
            raise NotDirectory("not a directory", parent)
        existing = await self.find_entry(path)
        if existing is not None and (exclusive or existing.kind is not Kind.FILE):
            raise AlreadyExists("the name is taken", path)
        now = time.time_ns()
        if existing is None:
            base: str | None = ABSENT
            made = replace(self._new_file(path), ino=self.inode(f"{self.key(path)}|{now}"))
        else:
            base = existing.version or staged.base
            made = replace(existing, version=None, key=None, mtime_ns=now, ctime_ns=now)
        staged.base = base
        made = self._with_changes(replace(made, size=0, staging=str(staged.path)), changes)
        self.uncommitted[path] = Uncommitted(made, base)
        self.memory.change(path, made)
        self.touch_parent(path)
        return made

    async def stage(self, path: str, entry: Entry, reader: AnyReader | None) -> StagedFile:
        """A staging file that begins with the present bytes of ``path``, to be written in place.

        ``reader`` is the reader this process already has open on that version, or None. A sealed cache file is un-sealed:
        renamed into staging, without a copy; descriptors and kernel backing ids of ``reader`` then are of the same file
        (`StagedFile.inherited`).

        Raises
        ------
        Stale
            Another process reads that cache file while ``reader`` is open: the kernel must look the name up again.
        """
        self.must_be_writable(path)
        staged = None
        if entry.staging is not None:
            try:
                staged = self._stage_pending(path, entry, reader)
            except FileNotFoundError:
                # Uploaded and sealed away a moment ago.
                entry = await self._settled_entry(path, entry)
        if staged is None:
            staged = await self._stage_sealed(path, entry, reader)
        staged.committed = signature(staged.descriptor)
        return staged

    async def _settled_entry(self, path: str, entry: Entry) -> Entry:
        """The entry of a file whose staging file is gone because the store has it."""
        now = self.cached(path)
        if now is None or now.staging == entry.staging:
            self.memory.forget_entry(path)
            now = await self.stat(path, fresh=True)
        return now

    def _stage_pending(self, path: str, entry: Entry, reader: AnyReader | None) -> StagedFile:
        """Bytes that are owed to the store stay as they are acknowledged: the journal keeps a frozen copy."""
        assert entry.staging is not None
        staging, old = self.services.staging, Path(entry.staging)
        frozen = staging.snapshot(old)
        with self.memory.lock:
            staged = staging.adopt(old, entry.version, inherited=reader is not None)
            self.journal.restage(str(old), str(frozen))
            for name in entry.links or (path,):
                known = self.cached(name)
                if known is not None and known.staging == entry.staging and name not in self.uncommitted:
                    self._same_bytes[known.ino, str(frozen)] = self.content(known) or str(frozen)
                    self.memory.change(name, replace(known, staging=str(frozen)))
        if not self.journal.uses(str(frozen)):
            # Uploaded while it was copied: what the store has now is what the staged file began with.
            staging.remove(frozen)
            staged.base = now.version if (now := self.cached(path)) is not None else staged.base
        return staged

    async def _stage_sealed(self, path: str, entry: Entry, reader: AnyReader | None) -> StagedFile:
        staging, cache, key = self.services.staging, self.services.cache, self.content_key(path, entry)
        if isinstance(reader, StagedReader):
            raise Stale("it was uploaded a moment ago", path)
        for _ in range(3):
            if reader is not None and not reader.complete:
                await on_loop()
                await reader.wait_complete()
            if not cache.contains(key):
                await on_loop()
                with self._reader(path, entry) as whole:
                    await whole.wait_complete()
            target = staging.name()
            if cache.unseal(key, target, reader=reader):
                return staging.adopt(target, entry.version, inherited=reader is not None)
            if reader is not None:
                raise Stale("another process reads its cached bytes", path)
            if (sealed := cache.open(key)) is not None:
                with sealed:
                    return staging.adopt(staging.snapshot(cache.objects / key.place), entry.version, inherited=False)
        raise Stale("its cached bytes were evicted again and again", path)

    async def commit(self, path: str, staged: StagedFile, *, hold: bool = False, durable: bool = False) -> Entry:
        """Close-to-open point: journal what changed since the last commit; "through" waits for the tiers.

        ``hold`` keeps the row against a crash only: the file is still being written.
        """
        if path not in self.uncommitted and not staged.changed():
            return self.cached(path) or await self.stat(path)
        known = self.cached(path) or await self._entry_of(path)
        with self.memory.lock:
            fresh = self.uncommitted.get(path)
            entry = fresh.entry if fresh is not None else self.cached(path) or known
            staged.committed = signature(staged.descriptor)
            size, mtime_ns = staged.committed
            entry = replace(entry, size=size, mtime_ns=mtime_ns, version=None, staging=str(staged.path), key=None)
            paths = entry.links or (path,)
            with self.journal.transaction(durable=durable):
                for name in paths:
                    base = self._base(name, staged, first=name == path)
                    self.owe(name, Action.PUT, entry, base=base, staging=str(staged.path), held=hold)
            for name in paths:
                if hold:
                    self.uncommitted[name] = Uncommitted(entry, self._base(name, staged, first=name == path))
                else:
                    self.uncommitted.pop(name, None)
                self.memory.change(name, entry)
        if not hold:
            await self.settle(paths)
        return entry

    def _base(self, name: str, staged: StagedFile, *, first: bool) -> str | None:
        """Version the store holds under one name of a staged file, as far as this process made or read it."""
        if name in self.uncommitted:
            return self.uncommitted[name].base
        key = self.key(name)
        if key in staged.versions:
            return staged.versions[key]
        if first:
            return staged.base
        known = self.cached(name)
        return known.version if known is not None else None

    async def _entry_of(self, path: str) -> Entry:
        """Attributes for bytes whose name a foreign writer may have removed meanwhile."""
        try:
            return await self.stat(path)
        except NotFound:
            return self._new_file(path)

    async def fsync(self, path: str, staged: StagedFile) -> None:
        """Bytes and intent survive power loss; ``fsync = "remote"``: they are in the tiers."""
        await on_loop()
        await asyncio.get_running_loop().run_in_executor(None, os.fsync, staged.descriptor)
        remote = self.policy.fsync == "remote"
        await self.commit(path, staged, hold=not remote, durable=True)
        if remote:
            await self.wait_for([path])

    async def release(self, path: str | None, staged: StagedFile) -> None:
        """Last close: commit late stores, close the descriptor, let the file be sealed. ``path`` None: unlinked, drop."""
        staging, uploader = self.services.staging, self.services.uploader
        try:
            if path is not None and (path in self.uncommitted or staged.changed()):
                await self.commit(path, staged)
        finally:
            last = signature(staged.descriptor)
            staging.release(staged)
        where = str(staged.path)
        if self.journal.uses(where):
            uploader.wake()
        elif path is None:
            staging.remove(where)
        elif staged.uploaded == last and (version := staged.versions.get(self.key(path))) is not None:
            uploader.seal(self.key(path), version, staged.path)
        elif staged.base and staged.uploaded is None:
            entry = self.cached(path)
            uploader.seal((entry.key if entry else None) or self.key(path), staged.base, staged.path)
        staging.remove(where) if not self.journal.uses(where) else None

    # -- what the uploader reports -----------------------------------------------------------------------------------------

    def carried_out(self, row: Pending, version: str) -> None:
        """A key of this route was carried out: what is remembered of it learns the store's version."""
        path = row.path
        before = row.staging or row.source_version
        with self.memory.lock:
            if path in self.uncommitted:
                self.uncommitted[path] = replace(self.uncommitted[path], base=version)
            if row.action in (Action.PUT, Action.COPY):
                ino = int((row.record or {}).get("ino", 0))
                if before is not None:
                    self._same_bytes[ino, version] = self._same_bytes.get((ino, before), before)
                if len(self._same_bytes) > REMEMBERED_UPLOADS:
                    self._same_bytes.popitem(last=False)
                known = self.memory.peek(path)
                if isinstance(known, Entry) and path not in self.uncommitted and self._stands_for(known, row):
                    self.memory.change(path, replace(known, version=version, staging=None, key=None))
                    return
            self.memory.touch(split(path)[0])

    def _stands_for(self, entry: Entry, row: Pending) -> bool:
        """The remembered entry is of the bytes that were carried out, not of newer ones."""
        if row.action is Action.PUT:
            return entry.staging == row.staging
        return entry.staging is None and (entry.key, entry.version) == (row.source, row.source_version)

    def lost(self, row: Pending, kept: str) -> None:
        """A foreign writer won the race for a key; our bytes are kept as ``kept``."""
        self.memory.forget_entry(row.path)
        self.memory.touch(split(row.path)[0])
