"""Looking up the names of one route, and finding all that is below one.

The journal is always read *before* the store: a row that is carried out in between then shows as pending (its bytes are
still found), never as missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from fsdriver import names
from fsdriver.attributes import Record, apply_record
from fsdriver.backends.base import ObjectInfo
from fsdriver.entry import Entry, Kind, altered
from fsdriver.errors import FsdriverError, NotDirectory, NotFound
from fsdriver.metadata.anticipation import PAGES, TooManyPages
from fsdriver.metadata.directory import Known
from fsdriver.metadata.listing import Listing, names_same_file
from fsdriver.metadata.offline import ask_or_recall
from fsdriver.names import split
from fsdriver.runtime import on_loop
from fsdriver.writeback.pending import Action, Pending

log = logging.getLogger(__name__)

NO_RECORDS: Mapping[str, Record] = MappingProxyType({})


class Lookup(Listing):
    """stat and find of one route; parameters as of `Listing`."""

    # -- stat --------------------------------------------------------------------------------------------------------

    def cached(self, path: str) -> Entry | None:
        """The entry if it is remembered and fresh."""
        if path in self.uncommitted:
            return self.uncommitted[path].entry
        found = self.memory.peek(path)
        return found if isinstance(found, Entry) else None

    def cached_for(self, path: str) -> tuple[Entry, float] | None:
        """As `cached`, with how many seconds longer the entry may be trusted."""
        if path in self.uncommitted:
            return self.uncommitted[path].entry, self.memory.ttl
        found = self.memory.look(path)
        return found if isinstance(found, tuple) else None

    def cached_names(self, directory: str, wanted: Sequence[str]) -> tuple[list[Entry | None], float]:
        """`cached_for` of many names of one directory; the time is that of the one that expires first."""
        found, left = self.memory.look_many(directory, wanted)
        if self.uncommitted:
            inside = f"{directory}/" if directory else ""
            for at, name in enumerate(wanted):
                if (state := self.uncommitted.get(inside + name)) is not None:
                    found[at] = state.entry
        return found, left

    async def stat(self, path: str, *, fresh: bool = False) -> Entry:
        """Attributes of one path.

        Raises
        ------
        NotFound
        """
        if path in self.uncommitted:
            return self.uncommitted[path].entry
        if not fresh and (remembered := self.memory.peek(path)) is not None:
            return _existing(remembered, path)
        known = None if fresh else self.memory.last(path)
        if known is None:
            return await self._asked(path, fresh=fresh)
        await on_loop()
        return await ask_or_recall(
            self.backend.outage, self._asked(path, fresh=False), partial(self._recall, known, path)
        )

    def _recall(self, known: Known, path: str) -> Entry:
        """What is known from before; what was changed here while the store was asked is newer than that."""
        self.recalled += 1
        if path in self.uncommitted:
            return self.uncommitted[path].entry
        return _existing(self.memory.last(path) or known, path)

    async def _asked(self, path: str, *, fresh: bool) -> Entry:
        """Attributes of one path as the store has them, and the journal."""
        if not fresh and (known := await self._remembered(path)) is not None:
            return known
        if path.partition("/")[0] == names.RESERVED:
            raise NotFound("reserved for what fsdriver keeps on the bucket", path)
        if (
            path
            and not fresh
            and await self._relist(split(path)[0])
            and (known := await self._remembered(path)) is not None
        ):
            return known
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

    async def _remembered(self, path: str) -> Entry | None:
        """The entry as it is remembered; of a directory that only its listing tells, attributes are asked for.

        Raises
        ------
        NotFound
            It is known not to exist.
        """
        found = self.memory.peek(path)
        if found is not None:
            return _existing(found, path)
        if path and self.memory.tells_directory(path):
            asked = self.memory.clock()
            return self.memory.learn_own(path, await self._own(path, None), asked)
        return None

    async def _relist(self, directory: str) -> bool:
        """List a directory whose listing has outlived its time to live: one request then answers for all its names."""
        if not self.backend.capabilities.flat_list or not self.memory.lapsed(directory):
            return False
        await on_loop()
        load = self._loads.get(directory) or self._begin_load(directory, most=1)
        try:
            await asyncio.shield(load)
        except (TooManyPages, NotFound, NotDirectory):
            return False  # whoever asks for the name is told so
        return True

    async def expect(self, directory: str, count: int) -> None:
        """So many names of a directory are about to be asked for: list it first if that takes fewer requests."""
        pages = self._anticipation.pages(directory, count) if self.backend.capabilities.flat_list else 0
        if not pages or self.memory.listing(directory) is not None:
            return
        await on_loop()
        load = self._loads.get(directory) or self._begin_load(directory, pages)
        try:
            await asyncio.shield(load)
        except TooManyPages:
            if pages == PAGES:
                self._anticipation.give_up(directory)
        except FsdriverError as error:
            log.debug("%s was not listed, its names are asked for one by one: %s", directory or "/", error)

    async def _ask(self, path: str) -> Entry | None:
        if not path:
            if not self._checked:
                await on_loop()
                await self.backend.check(self.prefix)
                self._checked = True
            return await self._own(path, None)
        identity, key, places = self.backend.identity, self.key(path), self.places(path)
        prefix = places[0]
        owed_file, owed_directory = self.journal.get(identity, key), self.journal.get(identity, prefix)
        if owed_file is not None and owed_file.action is not Action.DELETE:
            return self.from_pending(owed_file)
        if owed_directory is not None and owed_directory.action is Action.MARKER:
            return await self._own(path, None)
        if any(self.journal.owes_below(identity, place, deletions=False) for place in places):
            return await self._own(path, None)
        await on_loop()
        # Where a listing tells of subdirectories nothing but names, their times must not depend on who asked.
        native = not self.backend.capabilities.flat_list
        head, first, record = await asyncio.gather(self._head(key), self._first(places), self.record(path))
        if first is not None and not (owed_directory and owed_directory.action is Action.DELETE):
            return await self._own(path, first.mtime_ns if first.key == prefix and native else None)
        if head is None or owed_file is not None:
            return None
        entry = self.from_object(head, record, partial=await self.lacks_records(split(path)[0]))[0]
        return await self._confirmed(path, entry) if entry.links else entry

    async def _confirmed(self, path: str, entry: Entry) -> Entry:
        """A hard-linked file with those of its names that say so themselves.

        Who may write to one directory of the bucket could else have a change of a file there carried out on any other.
        """
        agreed = {path}
        for name in entry.links:
            if name != path and names_same_file(await self._record_now(name), entry, path):
                agreed.add(name)
        if len(agreed) < 2:
            return altered(entry, links=(), ino=self.inode(self.key(path)))
        return altered(entry, links=tuple(sorted(agreed)))

    async def _record_now(self, path: str) -> Record | None:
        """The record of a name, also while the journal still owes its bytes."""
        row = self.journal.get(self.backend.identity, self.key(path))
        if row is not None:
            return row.record
        try:
            return await self.record(path)
        except FsdriverError as error:
            log.debug("%s: whether it is another name of a file cannot be told: %s", path, error)
            return None

    async def _own(self, path: str, mtime_ns: int | None) -> Entry:
        entry = self.new_directory(path, mtime_ns)
        if not self.posix:
            return entry
        owed = self.journal.attributes.of_name(self.backend.identity, self.prefix, path, "")
        own = owed.record if owed is not None else (await self._stored(path)).own
        return replace(apply_record(entry, own), kind=Kind.DIRECTORY) if own else entry

    async def _head(self, key: str) -> ObjectInfo | None:
        try:
            return await self.backend.head(key)
        except NotFound:
            return None

    async def _first(self, places: Sequence[str]) -> ObjectInfo | None:
        """The first object of a directory, or a stand-in for a native empty directory."""
        for place in places:
            if (found := await self._first_below(place)) is not None:
                return found
        return None

    async def _first_below(self, prefix: str) -> ObjectInfo | None:
        if self.backend.capabilities.flat_list:
            some, _ = await self.backend.list_some(prefix, limit=1)
            return some.objects[0] if some.objects else None
        async for page in self.backend.list(prefix, delimiter=True):
            for info in page.objects:
                return info
            for deeper in page.prefixes:
                return ObjectInfo(deeper, 0, self.defaults.born_ns, "")
        return None

    # -- find --------------------------------------------------------------------------------------------------------

    async def find(self, path: str) -> AsyncIterator[Mapping[str, Entry]]:
        """All files below a directory, in batches keyed by route path; directories only where they are empty markers."""
        await on_loop()
        owed = {row.key: row for row in self.owed_below(path)}
        await self.described.load()
        where = dict.fromkeys(self.places(path), path)
        for row in owed.values():
            where |= names.folded(row.path, self.root_key)
        searched: set[str] = set()
        while left := where.keys() - searched:
            place = min(left)
            searched.add(place)
            async for page in self.backend.list(place, delimiter=False):
                batch: dict[str, Entry] = {}
                above, records = None, NO_RECORDS
                for info in page.objects:
                    name = self._found(info.key[len(place) :], where[place])
                    if name is None or info.key in owed:
                        continue
                    where |= names.folded(name, self.root_key)
                    if info.key.endswith("/"):
                        batch[name] = self.new_directory(name)
                        continue
                    parent, last = split(name)
                    if parent != above:
                        above, records = parent, (await self.attributes(parent)).entries
                    batch[name] = self.from_object(info, records.get(last))[0]
                yield batch
        yield {row.path: self.from_pending(row) for row in owed.values() if row.action is not Action.DELETE}

    def _found(self, key: str, directory: str) -> str | None:
        """Path of a key relative to a place of a directory; None for what is not shown."""
        if not key or (not directory and key.startswith(f"{names.RESERVED}/")):
            return None
        name = names.to_name(key.removesuffix("/"))
        if name is None:
            self.hidden += not key.endswith("/")
            return None
        return f"{directory}/{name}" if directory else name

    def owed_below(self, path: str) -> Sequence[Pending]:
        """What the journal owes to keys below a directory."""
        identity, inside = self.backend.identity, f"{path}/" if path else ""
        rows = {row.key: row for row in self.journal.below(identity, self.directory_key(path))}
        if path:
            deep = self.journal.below(identity, f"{self.root_key}{names.FOLDS}")
            rows |= {row.key: row for row in deep if row.path.startswith(inside)}
        return list(rows.values())


def _existing(found: Known, path: str) -> Entry:
    if isinstance(found, Entry):
        return found
    raise NotFound("no such file or directory", path)
