"""One route: a path prefix of the tree, the store behind it, its policy, and the operations every face calls.

Paths are relative to the route, without leading or trailing ``/``; ``""`` is the route's root. They are *names* (C3), never
keys. Coroutines follow `fsdriver.runtime`: warm ones finish in the calling thread. Every change is visible to all faces of
the process when its coroutine returns; with ``write = "through"`` the tiers have it then, with ``"back"`` the journal.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from fsdriver.attributes import apply_record, to_metadata
from fsdriver.backends.base import ABSENT, Backend
from fsdriver.directories import split
from fsdriver.entries import Defaults, Uncommitted
from fsdriver.entry import Entry, Kind
from fsdriver.errors import AlreadyExists, IsDirectory, Stale
from fsdriver.inplace import InPlace
from fsdriver.pending import Action, Pending
from fsdriver.renaming import exchange_files
from fsdriver.runtime import on_loop
from fsdriver.services import Policy, Services

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
        self, path: str, backend: Backend, prefix: str, policy: Policy, defaults: Defaults, services: Services
    ) -> None:
        super().__init__(backend, prefix, policy, defaults, services)
        self.path = path

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
            return await self._publish_back(path, source, entry or before or await self.find_entry(path))
        await on_loop()
        await self._settle_key(path)
        record = await self.record(path)
        made = entry or before or self._new_file(path)
        if entry is None and before is None and record is not None:
            made = apply_record(made, record)
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
            self.services.uploader.sender.seal(info.key, info.version, source)
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
                staged.fill(source)
            made = replace(
                like or self._new_file(path), kind=Kind.FILE, version=None, staging=str(staged.path), links=()
            )
            self.uncommitted[path] = Uncommitted(made, None)
            made = await self.commit(path, staged)
        finally:
            await self.release(path if path in self.uncommitted else None, staged)
        await self.announce([path])
        return made

    async def _settle_key(self, path: str) -> None:
        """Wait until nothing older is pending for a key that is about to be written directly."""
        key, identity = self.key(path), self.backend.identity

        def owed() -> bool:
            row = self.journal.get(identity, key)
            return row is not None and not row.held

        if owed():
            await self.services.uploader.wait(owed, lambda failed: failed == key, self.policy.timeout)

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
                if row.source is not None and row.source_version is not None:
                    self.moved(row.source, row.source_version, row.key, version)
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
