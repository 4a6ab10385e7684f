"""Records of attributes that one route owes to its attribute objects, and the marks that stand for those that follow later."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from typing import Final

from fsdriver.attributes import CARRIED, Record, to_record
from fsdriver.backends.base import ABSENT
from fsdriver.backends.store import Store
from fsdriver.entry import Entry, Kind
from fsdriver.errors import Stale
from fsdriver.metadata.entries import Defaults
from fsdriver.metadata.lookup import Lookup
from fsdriver.names import split
from fsdriver.routes.marks import own_marks
from fsdriver.routes.services import Policy, Services
from fsdriver.writeback.pending import Action, AttributeChange

MERGES: Final = 20
"""Attempts at changing an attribute object that other hosts change, too."""
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0
"""Most seconds between two of them, at first and in the end: hosts that keep step would go on refusing each other."""


class Records(Lookup):
    """What a route owes to its attribute objects.

    Attributes
    ----------
    marked : dict
        Directories whose attribute object has a mark of this process, and when they were last changed (`time.monotonic`).
    """

    def __init__(self, backend: Store, prefix: str, policy: Policy, defaults: Defaults, services: Services) -> None:
        super().__init__(
            backend, prefix, services.journal, services.epochs, defaults, ttl=policy.ttl, negative_ttl=policy.negative_ttl,
            posix=policy.posix, foreign_metadata=policy.foreign_metadata, most_remembered=policy.most_remembered,
        )  # fmt: skip
        self.policy = policy
        self.services = services
        self.marked: dict[str, float] = {}

    def owe_attributes(self, entries: Mapping[str, Entry | None]) -> None:
        """Journal attribute records; a directory's own goes to its own attribute object.

        The record of a file that is still to be sent waits with it, and gets to the attribute object when the store has it.
        """
        if not self.posix:
            return
        changes = []
        for path, entry in entries.items():
            directory, name = (path, "") if entry is not None and entry.kind is Kind.DIRECTORY else split(path)
            record = to_record(entry) if entry is not None else None
            if name and record is not None and self.journal.describe(self.backend.identity, self.key(path), record):
                continue
            changes.append(AttributeChange(self.backend.identity, self.prefix, directory, name, record))
            if name and record is not None and not self.has_attributes(directory):
                # The first record of a directory brings the directory's own along: its times are kept from now on.
                own = self.cached(directory)
                if own is not None:
                    changes.append(AttributeChange(self.backend.identity, self.prefix, directory, "", to_record(own)))
        if changes:
            self.journal.attributes.write(changes)

    def own_record(self, directory: str) -> Record | None:
        """What is remembered of a directory's own attributes; its times go along whenever a record in it is written."""
        own = self.cached(directory)
        return to_record(own) if own is not None and own.kind is Kind.DIRECTORY else None

    def owes_attributes(self, directory: str, name: str | None = None) -> bool:
        return self.journal.attributes.owed(self.backend.identity, self.prefix, directory, name)

    def owe_no_attributes(self, path: str) -> None:
        """A name goes: so does its record, if there is one."""
        parent, name = split(path)
        stored = self.memory.at(parent).attributes
        if stored is None or name in stored.entries or self.owes_attributes(parent):
            self.owe_attributes({path: None})

    def has_attributes(self, directory: str) -> bool:
        """Whether a directory has an attribute object, or will: a plain bucket is not given one for a time alone."""
        stored = self.memory.at(directory).attributes
        return (stored is not None and not stored.is_empty()) or self.owes_attributes(directory)

    # -- marks ---------------------------------------------------------------------------------------------------------

    @property
    def lazy(self) -> bool:
        """Objects carry their attributes themselves: who closes one need not wait for the attribute object.

        Its directory's attribute object then has a mark of this process, which makes others ask the objects, until the
        records have followed.
        """
        return self.posix and self.policy.write == "through" and self.backend.capabilities.metadata

    def still_marked(self, paths: Iterable[str]) -> bool:
        """The directories of all these names are marked, and stay so for a while."""
        parents = {split(path)[0] for path in paths}
        with self.memory.lock:
            if not parents <= self.marked.keys():
                return False
            self.marked.update(dict.fromkeys(parents, time.monotonic()))
            return True

    def mark_ahead(self, paths: Iterable[str]) -> None:
        """Beside the objects that are about to be put, mark their directories, and send what new directories are like."""
        if not self.lazy:
            return
        now = time.monotonic()
        for path in paths:
            parent = split(path)[0]
            if parent in self.marked:
                self.marked[parent] = now
            elif (row := self.journal.get(self.backend.identity, self.key(path))) and row.action is not Action.DELETE:
                self.services.uploader.flusher.urge(self.prefix, parent)
            if self.owes_attributes(path, ""):
                self.services.uploader.flusher.urge(self.prefix, path)

    def says_all(self, path: str) -> bool:
        """The object of a name says in its own metadata all that its record does, which is on its way."""
        change = self.journal.attributes.of_name(self.backend.identity, self.prefix, *split(path))
        return change is not None and change.record is not None and CARRIED in change.record

    def must_wait(self, paths: Iterable[str]) -> bool:
        """Whether something of these names is on this host only; its attribute object is sent then."""
        waiting = False
        for path in paths:
            if self.owes_attributes(path, ""):
                self.services.uploader.flusher.urge(self.prefix, path)
                waiting = True
            parent = split(path)[0]
            if self.is_unknown_to_others(path):
                self.services.uploader.flusher.urge(self.prefix, parent)
                waiting = True
        return waiting

    def is_unknown_to_others(self, path: str) -> bool:
        """The attribute object lacks the record of a name, and nothing else on the store says it."""
        parent, name = split(path)
        change = self.journal.attributes.of_name(self.backend.identity, self.prefix, parent, name)
        if change is None:
            return False
        if parent not in self.marked:
            return True
        if change.record is not None:
            return CARRIED not in change.record
        stored = self.memory.at(parent).attributes
        return stored is None or name in stored.entries

    async def flush_attributes(self, directory: str, *, mark: bool) -> None:
        """Merge what the journal owes to one attribute object; another host's changes to it are kept.

        ``mark`` leaves a mark there that records may be missing from now on; without it, one left before is removed.
        """
        identity, key, memory = self.backend.identity, self.meta_key(directory), self.memory.at(directory)
        mark = mark and self.lazy
        marked = directory in self.marked
        if not mark:
            # From here on nothing is acknowledged on the strength of it.
            with self.memory.lock:
                self.marked.pop(directory, None)
        stored = memory.attributes
        for attempt in range(MERGES):
            # In this order: a record whose row is already gone has got its version meanwhile, and is sent once more.
            changes = self.journal.attributes.of_directory(identity, self.prefix, directory)
            pending = {
                split(row.path)[1]
                for row in self.journal.children(identity, self.directory_key(directory))
                if row.action is not Action.DELETE and not row.key.endswith("/")
            }
            owed = {name: change for name, change in changes.items() if name not in pending}
            if not owed and mark == marked:
                return
            if stored is None:
                stored = await self.stored_attributes(directory)
            merged = stored.merged({name: change.record for name, change in owed.items()})
            merged.writers = own_marks(stored.writers, self.journal.owner, present=mark)
            try:
                if merged.is_empty():
                    if stored.version:
                        await self.backend.delete(key, if_version=stored.version)
                    merged.version = ABSENT
                elif merged != stored:
                    merged.version = (await self.backend.put(key, merged.dump(), if_version=stored.version)).version
            except Stale:
                stored = None
                await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)))  # noqa: S311
                continue
            if merged.version and stored.version == ABSENT:
                self.described.created(directory)
            self.memory.learn_attributes(directory, memory, merged, self.memory.clock())
            # Others remember the object as it was: they must ask for it again before the journal forgets what it lacked.
            self.memory.touch(directory)
            self.journal.attributes.finish(owed.values())
            if mark:
                self.marked[directory] = time.monotonic()
            return
        raise Stale("its attribute object is changed by others faster than it can be merged", directory)
