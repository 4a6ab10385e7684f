"""Files of one route that are written in place: what a mount does between open and close."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from fsdriver.backends.base import ABSENT
from fsdriver.entry import Changes, Entry, Kind, altered
from fsdriver.errors import AlreadyExists, NotDirectory, NotFound, Stale
from fsdriver.metadata.entries import Uncommitted
from fsdriver.names import split
from fsdriver.routes.reading import AnyReader, Reading
from fsdriver.runtime import on_loop
from fsdriver.writeback.pending import Action
from fsdriver.writeback.staging import StagedFile, StagedReader, origin_of, signature

COPIED_AT_ONCE: Final = 1 << 20
"""Bytes of a file that is copied in the thread that asks."""


class InPlace(Reading):
    """Creating, staging, committing and closing files that are written where they lie."""

    def _new_file(self, path: str, born: int | None = None) -> Entry:
        """A file that begins; one made at ``born`` (nanoseconds) is not the one that had its name before."""
        d, key, now = self.defaults, self.key(path), born or time.time_ns()
        return Entry(
            Kind.FILE, mode=d.mode, uid=d.uid, gid=d.gid, atime_ns=now, mtime_ns=now, ctime_ns=now,
            ino=self.inode(key if born is None else f"{key}|{born}"),
        )  # fmt: skip

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
            made = self._new_file(path, now)
        else:
            base, staged.replaces = existing.version, existing.staging
            made = altered(existing, version=None, key=None, mtime_ns=now, ctime_ns=now)
        staged.base = base
        made = self._with_changes(made, changes, size=0, staging=str(staged.path))
        written = self.uncommitted.get(path)
        self.uncommitted[path] = Uncommitted(made, base, existing if written is None else written.closed)
        self.memory.change(path, made)
        self.touch_parent(path, owed=False)
        if self.policy.write == "back":
            self.know_names(parent)
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
                staged = await self._stage_pending(path, entry, reader)
            except FileNotFoundError:
                # Uploaded and sealed away a moment ago.
                entry = await self._settled_entry(path, entry)
        if staged is None:
            staged = await self._stage_sealed(path, entry, reader)
            key = entry.key or self.key(path)
            if entry.version is not None:
                staged.versions[key] = entry.version
                self.services.staging.begins_with(staged, origin_of(key, entry.version))
        staged.committed = signature(staged.descriptor)
        return staged

    async def _stage_pending(self, path: str, entry: Entry, reader: AnyReader | None) -> StagedFile:
        """Bytes that are owed to the store stay as they are acknowledged.

        The copy of them is written to; where the kernel has the file open already, the copy is what is owed.
        """
        assert entry.staging is not None
        staging, old = self.services.staging, Path(entry.staging)
        frozen = await (self._snapshot(old) if reader is None else self._snapshot_owed(old))
        if reader is None:
            return self._stage_copy(path, entry.staging, frozen)
        with self.memory.lock:
            try:
                staged = staging.adopt(old, entry.version, inherited=True)
            except FileNotFoundError:
                staging.remove(frozen)
                raise
            staged.replaces = str(frozen)
            self._owe_frozen(path, entry, staged, frozen)
        await self._make_durable_if_synced(frozen)
        if not self.journal.uses(str(frozen)):
            # Uploaded while it was copied: what the store has now is what the staged file began with.
            staging.remove(frozen)
            staged.base = now.version if (now := self.cached(path)) is not None else staged.base
        return staged

    async def freeze(self, path: str, staged: StagedFile) -> None:
        """Before the bytes of an open staging file go: what was closed, and is owed, is owed from a copy."""
        where = str(staged.path)
        if staged.held or not self.journal.uses(where):
            return
        frozen = await self._snapshot_owed(staged.path)
        with self.memory.lock:
            before, staged.replaces = staged.replaces, str(frozen)
            self._owe_frozen(path, self.cached(path), staged, frozen)
        await self._make_durable_if_synced(frozen)
        if not self.journal.uses(str(frozen)):
            staged.replaces = None  # it was sent while it was copied
            self.services.staging.remove(frozen)
        if before is not None:
            self.drop_staging(before)

    async def _make_durable_if_synced(self, frozen: Path) -> None:
        """Before the file is written to of which ``frozen`` is the copy that is owed now."""
        if self.journal.is_synced(str(frozen)):
            await self._on_disk(self.journal.make_durable)

    def _owe_frozen(self, path: str, entry: Entry | None, staged: StagedFile, frozen: Path) -> None:
        """Rows and names that stand for the bytes of a staging file find them in its copy; under the lock of the names."""
        where = str(staged.path)
        self.journal.restage(where, str(frozen))
        self.services.staging.begins_with(staged, str(frozen))
        for name in (entry.links if entry is not None else ()) or (path,):
            known = self.cached(name)
            if known is not None and known.staging == where and name not in self.uncommitted:
                self._same_bytes[known.ino, str(frozen)] = self.content(known) or str(frozen)
                self.memory.change(name, altered(known, staging=str(frozen)))

    def _stage_copy(self, path: str, owed: str, copy: Path) -> StagedFile:
        with self.memory.lock:
            staged = self.services.staging.adopt(copy, None, inherited=False)
            staged.replaces = owed
            if self.journal.uses(owed):
                self.services.staging.begins_with(staged, owed)
            elif (now := self.cached(path)) is not None:
                staged.base = now.version
        return staged

    async def _snapshot_owed(self, path: Path) -> Path:
        """`_snapshot` of a file that is owed: what was promised to survive power loss does so in the copy."""
        copy = await self._snapshot(path)
        if self.journal.is_synced(str(path)):
            await self._on_disk(partial(self.services.staging.sync_paths, [str(copy)]))
        return copy

    async def _on_disk(self, act: Callable[[], object]) -> None:
        await on_loop()
        await asyncio.get_running_loop().run_in_executor(None, act)

    async def _snapshot(self, path: Path) -> Path:
        """`Staging.snapshot`; a large file is copied by a worker, for nobody else is to wait for that."""
        staging = self.services.staging
        if os.stat(path).st_size <= COPIED_AT_ONCE:
            return staging.snapshot(path)
        await on_loop()
        return await asyncio.get_running_loop().run_in_executor(None, staging.snapshot, path)

    async def _stage_sealed(self, path: str, entry: Entry, reader: AnyReader | None) -> StagedFile:
        staging, cache, key = self.services.staging, self.services.cache, self.content_key(path, entry)
        if isinstance(reader, StagedReader):
            # It was uploaded meanwhile, but stayed in staging because it is open.
            if self.content(entry) != str(reader.path) or not reader.in_place():
                raise Stale("it was uploaded a moment ago", path)
            return staging.adopt(reader.path, entry.version, inherited=True)
        if key.cipher is not None:
            copy = await self.materialize(path, replace(entry, staging=None))
            return staging.adopt(copy, entry.version, inherited=False)
        for _ in range(3):
            if reader is not None and not reader.complete:
                await on_loop()
                await reader.wait_complete()
            if not cache.contains(key):
                await on_loop()
                with self._reader(path, entry, cache.reader) as whole:
                    await whole.wait_complete()
            target = staging.name()
            if cache.unseal(key, target, reader=reader):
                return staging.adopt(target, entry.version, inherited=reader is not None)
            if reader is not None:
                raise Stale("another process reads its cached bytes", path)
            if (sealed := cache.open(key)) is not None:
                with sealed:
                    copy = await self._snapshot(cache.objects / key.place)
                    return staging.adopt(copy, entry.version, inherited=False)
        # It is evicted again and again: others fill a cache that is hardly larger than what they have open.
        return staging.adopt(await self.materialize(path, replace(entry, staging=None)), entry.version, inherited=False)

    async def commit(self, path: str, staged: StagedFile, *, hold: bool = False, synced: bool = False) -> Entry:
        """Close-to-open point: journal what changed since the last commit; "through" waits for the tiers.

        ``hold`` keeps the row against a crash only: the file is still being written. ``synced``: its bytes are on the disk.
        """
        if path not in self.uncommitted and not staged.changed():
            if synced and self.journal.uses(str(staged.path)):
                self.journal.note_synced([str(staged.path)], asked=True)
            return self.cached(path) or await self.stat(path)
        known = self.cached(path) or await self._entry_of(path)
        if not synced and staged.replaces is not None and self.journal.is_synced(staged.replaces):
            # What it replaces survives power loss, and goes once this is journaled: so must this (ext4(5), ``auto_da_alloc``).
            await self._on_disk(partial(self.services.staging.sync, staged))
            synced = True
        with self.memory.lock:
            fresh = self.uncommitted.get(path)
            entry = fresh.entry if fresh is not None else self.cached(path) or known
            again = staged.written
            staged.committed, staged.written, staged.digest = signature(staged.descriptor), True, None
            size, mtime_ns = staged.committed
            entry = altered(
                entry, size=size, mtime_ns=mtime_ns, ctime_ns=max(mtime_ns, entry.ctime_ns), version=None,
                staging=str(staged.path), key=None,
            )  # fmt: skip
            paths = entry.links or (path,)
            # One row is one statement, which is a transaction by itself.
            alone = not (synced or entry.links or staged.held or again)
            try:
                with nullcontext() if alone else self.journal.transaction():
                    if again:
                        self._learn_what_others_sent(staged, paths)
                    if synced:
                        self.journal.note_synced([str(staged.path)], asked=True)
                    elif again:
                        self.journal.forget_synced(str(staged.path), unless_asked=True)
                    for name in paths:
                        base = self._base(name, staged, first=name == path)
                        self.owe(name, Action.PUT, entry, base=base, staging=str(staged.path), held=hold)
                        if staged.held and not hold:
                            self.journal.forget_held(self.backend.identity, self.key(name))
            except OSError:
                staged.committed = None  # nothing is journaled: the next commit begins anew
                raise
            staged.held = hold
            for name in paths:
                if hold:
                    before = self.uncommitted.get(name)
                    closed = (self.cached(name) or known) if before is None else before.closed
                    self.uncommitted[name] = Uncommitted(entry, self._base(name, staged, first=name == path), closed)
                else:
                    self.uncommitted.pop(name, None)
                self.memory.change(name, entry)
        if not hold:
            await self.settle(paths)
        return entry

    def _learn_what_others_sent(self, staged: StagedFile, paths: Iterable[str]) -> None:
        """What was committed before may be on the store already by another process; what is written next replaces that."""
        sent = self.journal.sent_by_others(str(staged.path))
        staged.versions.update(sent)
        for name in paths:
            written, version = self.uncommitted.get(name), sent.get(self.key(name))
            if written is not None and version is not None:
                self.uncommitted[name] = replace(written, base=version)

    def _base(self, name: str, staged: StagedFile, *, first: bool) -> str | None:
        """Version the store holds under one name of a staged file, as far as this process made or read it."""
        if name in self.uncommitted:
            return self.uncommitted[name].base
        key = self.key(name)
        if key in staged.versions:
            return staged.versions[key]
        if first and not staged.versions:
            return staged.base
        # Renamed meanwhile, or another name of a hard-linked file.
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
        await self._on_disk(partial(self.services.staging.sync, staged))
        remote = self.policy.fsync == "remote"
        await self.commit(path, staged, hold=not remote, synced=True)
        await self._on_disk(self.journal.make_durable)
        if remote:
            await self.wait_for([path])

    async def sync_closed(self, path: str) -> None:
        """`fsync` of a file that is open for reading only: what was closed of it survives power loss."""
        staging = (self.cached(path) or await self.stat(path)).staging
        if staging is not None:
            await self._on_disk(partial(self.services.staging.sync_paths, [staging]))
            if self.journal.uses(staging):
                self.journal.note_synced([staging], asked=True)
        await self._on_disk(self.journal.make_durable)
        if self.policy.fsync == "remote":
            await self.wait_for([path])

    async def release(self, path: str | None, staged: StagedFile) -> None:
        """Last close: commit late stores, close the descriptor, let the file be sealed. ``path`` None: unlinked, drop."""
        staging, uploader = self.services.staging, self.services.uploader
        try:
            if path is not None and (path in self.uncommitted or staged.changed()):
                await self.commit(path, staged)
        finally:
            last = signature(staged.descriptor)
            where = str(staged.path)
            with self.memory.lock:
                # The uploader, once it is done, looks under this lock who has the file open: one of the two seals it.
                staging.release(staged)
                if path is not None:
                    self._give_up(path, where)
                known = self.cached(path) if path is not None else None
                pending = (known is not None and known.staging == where) or self.journal.uses(where)
        if pending:
            uploader.wake()
        elif path is None:
            self.let_go_of(where)
            staging.remove(where)
        elif staged.uploaded == last and (version := staged.versions.get(self.key(path))) is not None:
            uploader.sealer.seal(self.key(path), version, staged.path)
        elif staged.base and not staged.written and staged.uploaded is None:
            entry = self.cached(path)
            key = (entry.key if entry else None) or self.key(path)
            uploader.sealer.seal(key, staged.versions.get(key, staged.base), staged.path)
        if not self.journal.uses(where):
            self.let_go_of(where)
            staging.remove(where)
        if staged.replaces is not None:
            self.drop_staging(staged.replaces)
        if staged.written:
            self.journal.forget_sent(where)

    def _give_up(self, path: str, staging: str) -> None:
        """A file that is closed, and that could not be journaled, is as if it had not been written; who closed it was told."""
        written = self.uncommitted.get(path)
        if written is not None and written.entry.staging == staging:
            for name in written.entry.links or (path,):
                self.uncommitted.pop(name, None)
                self.memory.forget_entry(name)
