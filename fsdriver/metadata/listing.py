"""Listing the directories of one route: what the store lists, what attribute objects add, what the journal still owes.

The journal is always read *before* the store: a row that is carried out in between then shows as pending (its bytes are
still found), never as missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fsspec.asyn import get_loop

from fsdriver import names
from fsdriver.attributes import LARGEST, META_PREFIX, AttributeObject, Record
from fsdriver.backends.store import Store
from fsdriver.cache import Epochs
from fsdriver.entry import Entry, Kind
from fsdriver.errors import NotDirectory, NotFound
from fsdriver.metadata.anticipation import ENOUGH, PAGES, Anticipation, TooManyPages
from fsdriver.metadata.described import Described
from fsdriver.metadata.directories import Directories
from fsdriver.metadata.directory import Question
from fsdriver.metadata.entries import Defaults, Entries, Uncommitted
from fsdriver.metadata.levels import Level
from fsdriver.metadata.offline import ask_or_recall
from fsdriver.metadata.walking import Walks
from fsdriver.names import split
from fsdriver.runtime import on_loop
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Action, Pending

log = logging.getLogger(__name__)


def names_same_file(record: Record | None, entry: Entry, path: str) -> bool:
    """Whether the record of another name says that ``path``, with this entry, is a name of its file."""
    links = None if record is None else record.get("links")
    return record is not None and isinstance(links, list) and path in links and record.get("ino") == entry.ino


MOST_DESCRIBED = 10
"""Pages of names of attribute objects that are kept; beyond, each directory is asked for its own."""


@dataclass(frozen=True, slots=True)
class Owed:
    """What the journal owes to one directory."""

    rows: Collection[Pending] = ()
    marker: Pending | None = None
    implied: Collection[str] = ()


NOTHING_OWED = Owed()
NO_ATTRIBUTES = AttributeObject()


class Listing(Entries):
    """Listings of one route, and what it remembers.

    Parameters
    ----------
    backend, prefix, defaults, foreign_metadata
        See `Entries`. Where user metadata are asked for, a stat of an object without attribute record costs one HEAD.
    journal : Journal
    epochs : Epochs
    ttl, negative_ttl : float
        Seconds.
    posix : bool
        Attribute objects are read and written.
    most_remembered : int
        Bytes of memory that names and attributes may take.
    """

    def __init__(
        self,
        backend: Store,
        prefix: str,
        journal: Journal,
        epochs: Epochs,
        defaults: Defaults,
        *,
        ttl: float,
        negative_ttl: float,
        posix: bool,
        foreign_metadata: bool,
        most_remembered: int,
    ) -> None:
        super().__init__(backend, prefix, defaults, foreign_metadata=foreign_metadata)
        self.journal = journal
        self.posix = posix
        self.hidden = 0
        self.recalled = 0
        self.uncommitted: dict[str, Uncommitted] = {}
        self.memory = Directories(epochs, self._epoch_name, ttl, negative_ttl, time.monotonic, most_remembered)
        self.described = Described(
            self._described,
            epochs,
            f"{backend.identity}|{self.root_key}{META_PREFIX}",
            ttl if posix else 0.0,
            time.monotonic,
        )
        self._walks = Walks(self)
        self._anticipation = Anticipation(0.0 if foreign_metadata else ttl, time.monotonic)
        self._shared_names: dict[str, str] = {}
        self._checked = False
        self._loads: dict[str, asyncio.Future[Mapping[str, Entry]]] = {}

    def key(self, path: str) -> str:
        """Full key of a file's path; of an object shown with ``%file`` (`fsdriver.names`), that object's."""
        if path.endswith(names.FILE_SUFFIX) and (shared := self._shared_names.get(path)) is not None:
            return shared
        return super().key(path)

    # -- attribute objects -------------------------------------------------------------------------------------------

    async def attributes(self, path: str, *, fresh: bool = False) -> AttributeObject:
        """The attribute object of a directory, with what the journal still owes to it."""
        if not self.posix:
            return AttributeObject()
        owed = self.journal.attributes.of_directory(self.backend.identity, self.prefix, path)
        stored = await self._stored(path, fresh=fresh)
        return stored.merged({name: change.record for name, change in owed.items()}) if owed else stored

    async def record(self, path: str) -> Record | None:
        """The attribute record of one name, from its directory's attribute object or the journal."""
        parent, name = split(path)
        if not self.posix:
            return None
        owed = self.journal.attributes.of_name(self.backend.identity, self.prefix, parent, name)
        return owed.record if owed is not None else (await self._stored(parent)).entries.get(name)

    async def lacks_records(self, directory: str) -> bool:
        """Whether objects of a directory may be described by their own metadata alone."""
        return self.posix and (await self._stored(directory)).lacks_records(self.journal.owner)

    async def _stored(self, path: str, *, fresh: bool = False) -> AttributeObject:
        """The attribute object of a directory as it is remembered, else as the store has it."""
        memory = self.memory.at(path)
        stored = memory.attributes
        if stored is None or fresh or self.memory.clock() - memory.attributes_at > self.memory.ttl:
            if self.described.lacks(path):
                stored, asked = NO_ATTRIBUTES, self.described.asked
            else:
                stored, asked = await self.stored_attributes(path), self.memory.clock()
            self.memory.learn_attributes(path, memory, stored, asked)
        return stored

    async def stored_attributes(self, path: str) -> AttributeObject:
        """The attribute object as the store has it; empty if there is none."""
        key = self.meta_key(path)
        await on_loop()
        try:
            info, data = await self.backend.fetch(key, LARGEST)
        except NotFound:
            return AttributeObject()
        return AttributeObject.parse(bytes(data), info.version, key)

    async def _described(self) -> Collection[str] | None:
        """Escaped names of the directories that have an attribute object; None: too many."""
        prefix, pages = f"{self.root_key}{META_PREFIX}", 0
        found: set[str] = set()
        await on_loop()
        async for page in self.backend.list(prefix, delimiter=True):
            pages += 1
            if pages > MOST_DESCRIBED:
                return None
            found.update(info.key[len(prefix) :] for info in page.objects)
        return found

    def forget(self, path: str) -> None:
        """Ask the store again for all that is at and below a path."""
        self.described.forget()
        self.memory.forget(path, below=True)
        if path:
            self.memory.forget_entry(path)

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
        if fresh or (known := self.memory.last_listing(path)) is None:
            return await self._listed(path, fresh=fresh)

        def recall() -> Mapping[str, Entry]:
            self.recalled += 1
            return self.memory.last_listing(path) or known

        return await ask_or_recall(self.backend.outage, self._listed(path, fresh=False), recall)

    async def _listed(self, path: str, *, fresh: bool) -> Mapping[str, Entry]:
        """Entries of a directory as the store, and the journal, have them."""
        if path and not fresh and await self._walks.reach(path) and (found := self.memory.listing(path)) is not None:
            return found
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
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # the journal knew the name: nothing was asked of the store
        if directory not in self._loads and (most := self._anticipation.note(directory)):
            self._list_ahead(directory, most)

    def know_names(self, directory: str) -> None:
        """A name was made in a directory: know all the others, so that more can be made while the store is out of reach."""
        if self.backend.capabilities.flat_list and not self.memory.was_listed(directory):
            get_loop().call_soon_threadsafe(self._know_names, directory)

    def _know_names(self, directory: str) -> None:
        if directory not in self._loads and (most := self._anticipation.pages(directory, ENOUGH)):
            self._list_ahead(directory, most)

    def _list_ahead(self, directory: str, most: int) -> None:
        def ended(load: asyncio.Future[Mapping[str, Entry]]) -> None:
            error = None if load.cancelled() else load.exception()
            if isinstance(error, TooManyPages):
                if most == PAGES:
                    self._anticipation.give_up(directory)
            elif error is not None:
                log.info("%s was not listed ahead, its names are asked for one by one: %s", directory or "/", error)

        self._begin_load(directory, most).add_done_callback(ended)

    async def _load(self, path: str, most: int | None) -> Mapping[str, Entry]:
        for _ in range(3):
            started, asked = self.memory.begin_listing(path), self.memory.clock()
            try:
                owed = self._owed(path)
                level, attributes = await self._read(path, most)
                since = min(
                    started.attributes_at if self.posix else asked, self._since(asked) if level.prefixes else asked
                )
                entries, unverified = self._merge(level, attributes, owed)
            except BaseException:  # a listing that was cancelled notes no further changes either
                started.changes = None
                raise
            if path and not self._exists(level, entries, owed) and not started.changes:
                started.changes = None
                await self._explain_missing(path)
            if self.memory.install(path, entries, unverified, started, since if since < asked else None):
                break
        return self.memory.listing(path) or entries

    def _since(self, asked: float) -> float:
        """That directories have no attributes may be known for longer than the listing: it counts from then on."""
        return min(asked, self.described.asked) if self.described.known else asked

    async def _explain_missing(self, path: str) -> None:
        entry = await self.stat(path, fresh=True)
        if entry.kind is not Kind.DIRECTORY:
            raise NotDirectory("not a directory", path)

    @abstractmethod
    async def stat(self, path: str, *, fresh: bool = False) -> Entry: ...

    async def _read(self, path: str, most: int | None) -> tuple[Level, AttributeObject]:
        """What the store has of one directory. Of subdirectories one more request tells which have attributes."""
        level, attributes = await asyncio.gather(self._level(path, most), self.attributes(path, fresh=True))
        if level.prefixes:
            await self.described.load()
        return level, attributes

    async def _level(self, path: str, most: int | None) -> Level:
        level, pages = Level(path), 0
        for place in self.places(path):
            async for page in self.backend.list(place, delimiter=True):
                pages += 1
                if most is not None and pages > most:
                    raise TooManyPages(place)
                level.add_page(page, place)
        self.hidden += level.hidden
        return level

    # -- joining the three sources -----------------------------------------------------------------------------------

    def _owed(self, path: str) -> Owed:
        identity, prefix = self.backend.identity, self.directory_key(path)
        return Owed(
            self.journal.children(identity, prefix),
            self.journal.get(identity, prefix) if path else None,
            [name for place in self.places(path) for name in self.journal.implied_directories(identity, place)],
        )

    def _merge(self, level: Level, attributes: AttributeObject, owed: Owed) -> tuple[dict[str, Entry], set[str]]:
        """Entries of a directory, and the names of those whose attributes must be asked for one by one."""
        path = level.path
        unverified: set[str] = set()
        entries = self._directories(level, owed, unverified)
        if self._shared_names:
            for known in [known for known in self._shared_names if split(known)[0] == path]:
                del self._shared_names[known]
        records, partial = attributes.entries, attributes.lacks_records(self.journal.owner)
        gone = {row.key for row in owed.rows if row.action is Action.DELETE}
        objects = (
            {name: info for name, info in level.objects.items() if info.key not in gone} if gone else level.objects
        )
        for shown, name in names.shown_names(objects, entries.keys()).items():
            info = objects[name]
            entry, incomplete = self.from_object(info, records.get(shown), partial=partial)
            entries[shown] = entry if shown == name else replace(entry, key=info.key)
            if shown != name:
                self._shared_names[f"{path}/{shown}" if path else shown] = info.key
            if incomplete or (entry.links and not self._agree(path, shown, entry, records)):
                unverified.add(shown)
        for row in owed.rows:
            name = split(row.path)[1]
            if row.action is not Action.DELETE:
                entries[name] = self.from_pending(row)
            elif name in entries and (entries[name].kind is Kind.DIRECTORY) == row.key.endswith("/"):
                del entries[name]
            unverified.discard(name)
            if row.action is Action.MARKER:
                unverified.add(name)  # its own attributes are owed apart from it
        for written, state in self.uncommitted.items():
            parent, name = split(written)
            if parent == path:
                entries[name] = state.entry
                unverified.discard(name)
        return entries, unverified

    @staticmethod
    def _agree(directory: str, name: str, entry: Entry, records: Mapping[str, Record]) -> bool:
        """All names of a hard-linked file are in this directory, whose records confirm each other."""
        whole = f"{directory}/{name}" if directory else name
        return whole in entry.links and all(
            parent == directory and names_same_file(records.get(last), entry, whole)
            for parent, last in map(split, entry.links)
        )

    def _directories(self, level: Level, owed: Owed, unverified: set[str]) -> dict[str, Entry]:
        """Subdirectories; one that may have attributes of its own is not verified."""
        entries: dict[str, Entry] = {}
        inside = f"{level.path}/" if level.path else ""
        found = {**level.prefixes, **dict.fromkeys(names.unescape(segment) for segment in owed.implied)}
        described = self._described_by_journal() if found and self.posix else ()
        for name in found:
            if inside or name != names.RESERVED:
                below = inside + name
                entries[name] = self.new_directory(below)
                if self.posix and (below in described or not self.described.lacks(below)):
                    unverified.add(name)
        return entries

    def _described_by_journal(self) -> Collection[str]:
        owed = self.journal.attributes.directories(self.backend.identity)
        return {directory for root, directory in owed if root == self.prefix}

    def _exists(self, level: Level, entries: Mapping[str, Entry], owed: Owed) -> bool:
        if owed.marker is not None and owed.marker.action is Action.DELETE and not entries:
            return False
        return level.exists or bool(entries) or (owed.marker is not None and owed.marker.action is Action.MARKER)

    # -- what a walk found -------------------------------------------------------------------------------------------

    def nothing_owed(self, path: str) -> bool:
        """The journal has nothing at or below a directory."""
        return not self.journal.owes_below(self.backend.identity, self.directory_key(path))

    async def install_levels(self, levels: Sequence[Level], question: Question) -> None:
        """Remember directories that a flat listing told completely, and to which nothing was owed when it was asked for."""
        # Of what lies under folds a flat listing does not tell.
        levels = [level for level in levels if len(self.places(level.path)) == 1]
        described = self._described_by_journal() if self.posix else ()
        lacking = [level.path for level in levels if level.path in described or not self.described.lacks(level.path)]
        since = self._since(question.at)
        found = dict(
            zip(lacking, await asyncio.gather(*(self.attributes(path, fresh=True) for path in lacking)), strict=True)
        )
        for level in levels:
            self.hidden += level.hidden
            entries, unverified = self._merge(level, found.get(level.path, NO_ATTRIBUTES), NOTHING_OWED)
            self.memory.install_answer(level.path, entries, unverified, question, since)
