"""Reading the namespace of one route: what the store lists, what attribute objects add, what the journal still owes.

The journal is always read *before* the store: a row that is carried out in between then shows as pending (its bytes are
still found), never as missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from fsdriver import names
from fsdriver.anticipation import PAGES, Anticipation, TooManyPages
from fsdriver.attributes import META_PREFIX, AttributeObject, Record, apply_record
from fsdriver.backends.base import Backend, ObjectInfo
from fsdriver.cache import Epochs
from fsdriver.directories import MISSING, Directories, split
from fsdriver.entries import Defaults, Entries, Uncommitted
from fsdriver.entry import Entry, Kind
from fsdriver.errors import NotDirectory, NotFound
from fsdriver.journal import Journal
from fsdriver.pending import Action
from fsdriver.runtime import on_loop

log = logging.getLogger(__name__)


class Lookup(Entries):
    """stat, list and find of one route.

    Parameters
    ----------
    backend : Backend
    prefix : str
        Key prefix of the route's root, without slashes at its ends.
    journal : Journal
    epochs : Epochs
    defaults : Defaults
    ttl, negative_ttl : float
        Seconds.
    posix : bool
        Attribute objects are read and written.
    foreign_metadata : bool
        A stat of an object without attribute record asks for its user metadata (one HEAD).
    """

    def __init__(
        self,
        backend: Backend,
        prefix: str,
        journal: Journal,
        epochs: Epochs,
        defaults: Defaults,
        *,
        ttl: float,
        negative_ttl: float,
        posix: bool,
        foreign_metadata: bool,
    ) -> None:
        super().__init__(backend, prefix, defaults, foreign_metadata=foreign_metadata)
        self.journal = journal
        self.posix = posix
        self.hidden = 0
        self.uncommitted: dict[str, Uncommitted] = {}
        self.memory = Directories(epochs, self._epoch_name, ttl, negative_ttl, time.monotonic)
        self._anticipation = Anticipation(0.0 if foreign_metadata else ttl, time.monotonic)
        self._shared_names: dict[str, str] = {}
        self._checked = False
        self._loads: dict[str, asyncio.Future[Mapping[str, Entry]]] = {}

    def key(self, path: str) -> str:
        """Full key of a file's path; of an object shown with ``%file`` (C3), that object's."""
        if path.endswith(names.FILE_SUFFIX) and (shared := self._shared_names.get(path)) is not None:
            return shared
        return super().key(path)

    # -- attribute objects -------------------------------------------------------------------------------------------

    async def attributes(self, path: str, *, fresh: bool = False) -> AttributeObject:
        """The attribute object of a directory, with what the journal still owes to it."""
        if not self.posix:
            return AttributeObject()
        owed = self.journal.attribute_changes(self.backend.identity, self.prefix, path)
        stored = await self._stored(path, fresh=fresh)
        return stored.merged({name: change.record for name, change in owed.items()}) if owed else stored

    async def record(self, path: str) -> Record | None:
        """The attribute record of one name, from its directory's attribute object or the journal."""
        parent, name = split(path)
        if not self.posix:
            return None
        owed = self.journal.attribute_change(self.backend.identity, self.prefix, parent, name)
        return owed.record if owed is not None else (await self._stored(parent)).entries.get(name)

    async def _stored(self, path: str, *, fresh: bool = False) -> AttributeObject:
        """The attribute object of a directory as it is remembered, else as the store has it."""
        memory = self.memory.at(path)
        stored = memory.attributes
        if stored is None or fresh or self.memory.clock() - memory.attributes_at > self.memory.ttl:
            stored = await self.stored_attributes(path)
            memory.attributes, memory.attributes_at = stored, self.memory.clock()
        return stored

    async def stored_attributes(self, path: str) -> AttributeObject:
        """The attribute object as the store has it; empty if there is none."""
        key = self.meta_key(path)
        await on_loop()
        try:
            info, data = await self.backend.fetch(key)
        except NotFound:
            return AttributeObject()
        return AttributeObject.parse(bytes(data), info.version, key)

    # -- stat --------------------------------------------------------------------------------------------------------

    def cached(self, path: str) -> Entry | None:
        """The entry if it is remembered and fresh."""
        if path in self.uncommitted:
            return self.uncommitted[path].entry
        found = self.memory.peek(path)
        return found if isinstance(found, Entry) else None

    async def stat(self, path: str, *, fresh: bool = False) -> Entry:
        """Attributes of one path.

        Raises
        ------
        NotFound
        """
        if path in self.uncommitted:
            return self.uncommitted[path].entry
        if not fresh:
            found = self.memory.peek(path)
            if isinstance(found, Entry):
                return found
            if found is MISSING:
                raise NotFound("no such file or directory", path)
        if path.partition("/")[0] == names.RESERVED:
            raise NotFound("reserved for what fsdriver keeps on the bucket", path)
        for _ in range(3):
            asked, started = self.memory.clock(), self.memory.at(split(path)[0]) if path else None
            if path.endswith(names.FILE_SUFFIX):
                parent, name = split(path)
                entry = (await self.list(parent, fresh=fresh)).get(name)
                if entry is not None and entry.kind is Kind.DIRECTORY:
                    entry = await self._ask(path)
            else:
                entry = await self._ask(path)
                if path and entry is not None and not fresh:
                    self._anticipate(split(path)[0])
            if started is None or self.memory.at(split(path)[0]) is started:
                break
            # Another process changed the directory while the store was asked: the answer may be older than that.
        entry = self.memory.learn(path, entry, asked, started)
        if entry is None:
            raise NotFound("no such file or directory", path)
        return entry

    async def _ask(self, path: str) -> Entry | None:
        if not path:
            if not self._checked:
                await on_loop()
                await self.backend.check(self.prefix)
                self._checked = True
            return await self._own(path, None)
        identity, key, prefix = self.backend.identity, self.key(path), self.directory_key(path)
        owed_file, owed_directory = self.journal.get(identity, key), self.journal.get(identity, prefix)
        if owed_file is not None and owed_file.action is not Action.DELETE:
            return self.from_pending(owed_file)
        if owed_directory is not None and owed_directory.action is Action.MARKER:
            return await self._own(path, None)
        if self.journal.owes_below(identity, prefix, deletions=False):
            return await self._own(path, None)
        await on_loop()
        head, first, record = await asyncio.gather(self._head(key), self._first(prefix), self.record(path))
        if first is not None and not (owed_directory and owed_directory.action is Action.DELETE):
            return await self._own(path, first.mtime_ns if first.key == prefix else None)
        if head is None or owed_file is not None:
            return None
        return self.from_object(head, record)[0]

    async def _own(self, path: str, mtime_ns: int | None) -> Entry:
        entry = self.new_directory(path, mtime_ns)
        if not self.posix:
            return entry
        owed = self.journal.attribute_change(self.backend.identity, self.prefix, path, "")
        own = owed.record if owed is not None else (await self._stored(path)).own
        return replace(apply_record(entry, own), kind=Kind.DIRECTORY) if own else entry

    async def _head(self, key: str) -> ObjectInfo | None:
        try:
            return await self.backend.head(key)
        except NotFound:
            return None

    async def _first(self, prefix: str) -> ObjectInfo | None:
        """The first object under a prefix, or a stand-in for a native empty directory."""
        async for page in self.backend.list(prefix, delimiter=True):
            for info in page.objects:
                return info
            for deeper in page.prefixes:
                return ObjectInfo(deeper, 0, self.defaults.born_ns, "")
        return None

    # -- list --------------------------------------------------------------------------------------------------------

    async def list(self, path: str, *, fresh: bool = False) -> Mapping[str, Entry]:
        """Entries of a directory by name: one LIST and one GET.

        Raises
        ------
        NotFound, NotDirectory
        """
        if not fresh and (found := self.memory.listing(path)) is not None:
            return found
        await on_loop()
        while True:
            if (load := self._loads.get(path)) is None:
                load = self._begin_load(path)
            try:
                return await asyncio.shield(load)
            except TooManyPages:
                continue  # an unasked listing was under way; this one has no limit

    def _begin_load(self, path: str, most: int | None = None) -> asyncio.Future[Mapping[str, Entry]]:
        load = self._loads[path] = asyncio.ensure_future(self._load(path, most))
        load.add_done_callback(lambda _: self._loads.pop(path, None))
        return load

    def _anticipate(self, directory: str) -> None:
        """List a directory whose names are asked for one by one, without anybody waiting for it."""

        def ended(load: asyncio.Future[Mapping[str, Entry]]) -> None:
            error = None if load.cancelled() else load.exception()
            if isinstance(error, TooManyPages):
                self._anticipation.give_up(directory)
            elif error is not None:
                log.info("%s was not listed ahead, its names are asked for one by one: %s", directory or "/", error)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # the journal knew the name: nothing was asked of the store
        if directory not in self._loads and self._anticipation.note(directory):
            self._begin_load(directory, PAGES).add_done_callback(ended)

    async def _load(self, path: str, most: int | None) -> Mapping[str, Entry]:
        for _ in range(3):
            started = self.memory.begin_listing(path)
            try:
                entries, unverified, exists = await self._read(path, most)
            except BaseException:
                started.changes = None
                raise
            if path and not exists and not started.changes:
                started.changes = None
                await self._explain_missing(path)
            if self.memory.install(path, entries, unverified, started):
                break
        return self.memory.listing(path) or entries

    async def _explain_missing(self, path: str) -> None:
        entry = await self.stat(path, fresh=True)
        if entry.kind is not Kind.DIRECTORY:
            raise NotDirectory("not a directory", path)

    async def _read(self, path: str, most: int | None) -> tuple[dict[str, Entry], set[str], bool]:
        identity, prefix = self.backend.identity, self.directory_key(path)
        owed = self.journal.children(identity, prefix)
        marker = self.journal.get(identity, prefix) if path else None
        implied = self.journal.implied_directories(identity, prefix)
        listed, attributes = await asyncio.gather(self._pages(prefix, most), self.attributes(path, fresh=True))
        objects, prefixes, exists = listed
        entries: dict[str, Entry] = {}
        unverified: set[str] = set()
        for name in {*prefixes, *(names.unescape(segment) for segment in implied)}:
            if path or name != names.RESERVED:
                entries[name] = self.new_directory(f"{path}/{name}" if path else name)
        for known in [known for known in self._shared_names if split(known)[0] == path]:
            del self._shared_names[known]
        for shown, name in names.shown_names(objects, entries.keys()).items():
            info = objects[name]
            entry, incomplete = self.from_object(info, attributes.entries.get(shown))
            entries[shown] = entry if shown == name else replace(entry, key=info.key)
            if shown != name:
                self._shared_names[f"{path}/{shown}" if path else shown] = info.key
            if incomplete:
                unverified.add(shown)
        for row in owed:
            name = split(row.path)[1]
            if row.action is not Action.DELETE:
                entries[name] = self.from_pending(row)
            elif name in entries and (entries[name].kind is Kind.DIRECTORY) == row.key.endswith("/"):
                del entries[name]
            unverified.discard(name)
        for written, state in self.uncommitted.items():
            parent, name = split(written)
            if parent == path:
                entries[name] = state.entry
        exists = exists or bool(entries) or (marker is not None and marker.action is Action.MARKER)
        if marker is not None and marker.action is Action.DELETE and not entries:
            exists = False
        return entries, unverified, exists

    async def _pages(self, prefix: str, most: int | None) -> tuple[dict[str, ObjectInfo], Sequence[str], bool]:
        objects: dict[str, ObjectInfo] = {}
        prefixes = []
        exists = False
        pages = 0
        async for page in self.backend.list(prefix, delimiter=True):
            pages += 1
            if most is not None and pages > most:
                raise TooManyPages(prefix)
            for info in page.objects:
                exists = True
                if info.key == prefix:
                    continue
                name = names.to_name(info.key[len(prefix) :])
                if name is None or "/" in name:
                    self.hidden += 1
                else:
                    objects[name] = info
            for deeper in page.prefixes:
                exists = True
                name = names.to_name(deeper[len(prefix) : -1])
                if name is None or "/" in name:
                    self.hidden += 1
                else:
                    prefixes.append(name)
        return objects, prefixes, exists

    # -- find --------------------------------------------------------------------------------------------------------

    async def find(self, path: str) -> AsyncIterator[Mapping[str, Entry]]:
        """All files below a directory, in batches keyed by route path; directories only where they are empty markers."""
        await on_loop()
        identity, prefix, root = self.backend.identity, self.directory_key(path), self.root_key
        owed = {row.key: row for row in self.journal.below(identity, prefix)}
        described = await self._described(root) if self.posix else frozenset()
        async for page in self.backend.list(prefix, delimiter=False):
            batch: dict[str, Entry] = {}
            for info in page.objects:
                key = info.key[len(root) :]
                if key.startswith(f"{names.RESERVED}/") or info.key in owed:
                    continue
                name = names.to_name(key.removesuffix("/")) if key else None
                if name is None:
                    self.hidden += key != "" and not key.endswith("/")
                    continue
                if key.endswith("/"):
                    batch[name] = self.new_directory(name, info.mtime_ns)
                    continue
                parent, last = split(name)
                known = (
                    await self.attributes(parent) if names.escape_directory(parent) in described else AttributeObject()
                )
                batch[name] = self.from_object(info, known.entries.get(last))[0]
            yield batch
        yield {row.path: self.from_pending(row) for row in owed.values() if row.action is not Action.DELETE}

    async def _described(self, root: str) -> frozenset[str]:
        """Escaped names of the directories that have an attribute object."""
        prefix = f"{root}{META_PREFIX}"
        found = {
            info.key[len(prefix) :]
            async for page in self.backend.list(prefix, delimiter=False)
            for info in page.objects
        }
        return frozenset(
            found | {names.escape_directory(d) for _, d, _ in self.journal.attribute_directories(self.backend.identity)}
        )
