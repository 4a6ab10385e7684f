"""One route: a path prefix of the tree, the store behind it, its policy, and the operations every face calls.

Paths are relative to the route, without leading or trailing ``/``; ``""`` is the route's root. They are *names*, never keys
(`fsdriver.names`). Coroutines follow `fsdriver.runtime`: warm ones finish in the calling thread. Every change is visible to all
faces of the process when its coroutine returns; with ``write = "through"`` the tiers have it then, with ``"back"`` the journal.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from fsdriver.attributes import to_metadata
from fsdriver.backends.base import ABSENT
from fsdriver.backends.store import Store
from fsdriver.entry import Entry, Kind, altered
from fsdriver.errors import AlreadyExists, IsDirectory, Stale
from fsdriver.metadata.entries import Defaults, Uncommitted
from fsdriver.names import split
from fsdriver.routes.inplace import InPlace
from fsdriver.routes.services import Policy, Services
from fsdriver.runtime import on_loop
from fsdriver.writeback.pending import Action, Pending

REMEMBERED_UPLOADS: Final = 200_000
"""Uploads of which the route still knows which staged bytes they were."""


class Route(InPlace):
    """See the module.

    Parameters
    ----------
    path : str
        Where it hangs in the tree, ``"/"`` for a URL mounted alone.
    backend, prefix
        The store and the key prefix of the route's root.
    """

    def __init__(
        self, path: str, backend: Store, prefix: str, policy: Policy, defaults: Defaults, services: Services
    ) -> None:
        super().__init__(backend, prefix, policy, defaults, services)
        self.path = path
        if not backend.capabilities.cached:
            services.cache.streamed.add(backend.identity)

    # -- publishing ----------------------------------------------------------------------------------------------------

    async def publish(
        self, path: str, source: Path | bytes, *, base: str | None = None, entry: Entry | None = None
    ) -> Entry:
        """Make ``source`` the content of ``path``, atomically; a Path (in staging) is consumed.

        Parameters
        ----------
        base : str or None
            None replaces whatever is there (in "back" mode, not what nobody could see while the store was out of reach: that
            is a conflict); ABSENT ("") demands a new name; else the version expected there.
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
        await self.ensure_parents(path)
        if self.policy.write == "back" and base is None:
            told = True
            if before is None:
                before, told = await self.find_if_told(path)
            return await self._publish_back(path, source, before, entry, base=None if told else ABSENT)
        await on_loop()
        await self._settle_key(path)
        record, before = await self.record(path), self.cached(path)
        if before is None and record is not None:
            # The record may be of an object that others have replaced since.
            before = await self.find_entry(path)
        made = altered(self._replacing(path, before, entry), staging=None, key=None, mtime_ns=time.time_ns())
        carried = self.posix and (entry is not None or record is not None)
        keeper = self.services.uploader.keeper
        if not await keeper.keep(self.key(path)):
            keeper.give_up(self.key(path))
        try:
            info = await self.backend.put(
                self.key(path), source, metadata=to_metadata(made) if carried else None, if_version=base
            )
        except Stale as error:
            if base == ABSENT:
                raise AlreadyExists("the name is taken", path) from error
            raise
        if isinstance(source, Path):
            self.services.uploader.sealer.seal(info.key, info.version, source)
            self.services.staging.remove(source)
        made = altered(
            made, size=info.size, version=info.version, mtime_ns=info.mtime_ns, atime_ns=info.mtime_ns, ctime_ns=info.mtime_ns
        )  # fmt: skip
        unlinked = before.links if before is not None else ()
        if before is not None:
            await self.know_links(before)
        with self.changing():
            if carried:
                self.owe_attributes({path: made})
            if before is not None:
                self.relink(before, {path: None}, time.time_ns())
            self.memory.change(path, made)
        await self.announce([path, *unlinked])
        if carried:
            await self.services.uploader.wait(
                lambda: any(self.owes_attributes(*split(name)) for name in (path, *unlinked)),
                lambda _: False,
                self.policy.timeout,
            )
        return made

    def _replacing(self, path: str, before: Entry | None, entry: Entry | None) -> Entry:
        """Attributes of a new file that takes a name: given ones, else of the file before; no longer one of its links."""
        made = entry or before or self._new_file(path)
        ino = self.inode(f"{self.key(path)}|{time.time_ns()}") if made.links else made.ino
        return altered(made, kind=Kind.FILE, links=(), ino=ino)

    async def _publish_back(
        self, path: str, source: Path | bytes, before: Entry | None, entry: Entry | None, *, base: str | None
    ) -> Entry:
        """`publish` into the journal; ``base`` ABSENT: what the store has of that name is not known, and must not go unseen."""
        staged = self.services.staging.new(None)
        try:
            if isinstance(source, Path):
                self.services.staging.release(staged)
                os.replace(source, staged.path)
                staged = self.services.staging.adopt(staged.path, None, inherited=False)
            else:
                staged.fill(source)
            staged.replaces = before.staging if before is not None else None
            made = altered(self._replacing(path, before, entry), version=None, staging=str(staged.path))
            self.uncommitted[path] = Uncommitted(made, base)
            if before is not None:
                await self.know_links(before)
                with self.changing():
                    self.relink(before, {path: None}, time.time_ns())
            made = await self.commit(path, staged)
        finally:
            await self.release(path if path in self.uncommitted else None, staged)
        return made

    async def _settle_key(self, path: str) -> None:
        """Wait until nothing older is pending for a key that is about to be written directly, nor copied from it."""
        key, identity, below = self.key(path), self.backend.identity, self.directory_key(path)

        def owed() -> bool:
            pending = self.journal.get(identity, key) is not None or self.journal.is_source(identity, key)
            # A directory of that name that was removed or renamed is in the way where directories are real.
            return pending or self.journal.get(identity, below) is not None or self.journal.owes_below(identity, below)

        if owed():
            await self.announce([path])
            await self.services.uploader.wait(owed, lambda failed: failed == key, self.policy.timeout)

    # -- what the uploader reports -----------------------------------------------------------------------------------------

    def carried_out(self, row: Pending, version: str) -> None:
        """A key of this route was carried out: what is remembered of it learns the store's version."""
        path = row.path
        before = row.staging or row.source_version
        with self.memory.lock:
            if (written := self.uncommitted.get(path)) is not None:
                closed = written.closed
                if closed is not None and self._stands_for(closed, row):
                    closed = replace(closed, version=version, staging=None, key=None)
                self.uncommitted[path] = replace(written, base=version, closed=closed)
            if row.action in (Action.PUT, Action.COPY):
                ino = int((row.record or {}).get("ino", 0))
                if before is not None:
                    self._same_bytes[ino, version] = self._same_bytes.get((ino, before), before)
                if row.source is not None and row.source_version is not None:
                    self.services.uploader.keeper.moved(row.source, row.source_version, row.key, version)
                if len(self._same_bytes) > REMEMBERED_UPLOADS:
                    self._same_bytes.popitem(last=False)
                known = self.memory.peek(path)
                if isinstance(known, Entry) and path not in self.uncommitted and self._stands_for(known, row):
                    self.memory.change(path, altered(known, version=version, staging=None, key=None))
                    return
                if isinstance(known, Entry) and known.staging is not None and path not in self.uncommitted:
                    # Remembered as bytes that nothing is owed for any more: the store knows better.
                    self.memory.forget_entry(path)
            self.memory.touch(split(path)[0])

    def _stands_for(self, entry: Entry, row: Pending) -> bool:
        """The remembered entry is of the bytes that were carried out, not of newer ones."""
        if row.action is Action.PUT:
            return entry.staging == row.staging
        return entry.staging is None and (entry.key, entry.version) == (row.source, row.source_version)

    def lost(self, row: Pending) -> None:
        """A foreign writer won the race for a key."""
        self.memory.forget_entry(row.path)
        self.memory.touch(split(row.path)[0])
