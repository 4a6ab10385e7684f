"""Changing names and attributes of one route: every change becomes rows of the journal and is remembered at once."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fsdriver.backends.base import ABSENT
from fsdriver.entry import Changes, Entry, Kind, altered
from fsdriver.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    InvalidName,
    IsDirectory,
    NotDirectory,
    NotFound,
    Unsupported,
)
from fsdriver.metadata.entries import Uncommitted
from fsdriver.routes.owing import Owing
from fsdriver.routes.renaming import exchange_files, rename_directory, rename_file
from fsdriver.writeback.pending import Action, Pending


class NameChanges(Owing):
    """Everything that changes a route but bytes of files."""

    async def set_attributes(self, path: str, changes: Changes) -> Entry:
        """Change mode, owner, times or xattrs; rewrites nothing but the attribute object.

        Raises
        ------
        NotFound
        Unsupported
            The route keeps no attributes (``posix = "off"``).
        """
        self.must_be_writable(path)
        entry = await self.stat(path)
        if not self.posix and path not in self.uncommitted:
            raise Unsupported('this route keeps no attributes (posix = "off")', path)
        now = time.time_ns()
        linked = {name: await self.find_entry(name) for name in entry.links} or {path: entry}
        with self.changing():
            for name, before in linked.items():
                # The names of a hard-linked file share attributes; each keeps its own key and version.
                known = self.cached(name) or before
                if known is None:
                    continue
                made = self._with_changes(altered(known, ctime_ns=now), changes)
                if name in self.uncommitted:
                    self.uncommitted[name] = replace(self.uncommitted[name], entry=made)
                else:
                    self.owe_attributes({name: made})
                self.memory.change(name, made)
        if path not in self.uncommitted:
            await self.settle([path])
        return self.cached(path) or entry

    # -- making and removing names -------------------------------------------------------------------------------------

    async def mkdir(self, path: str, changes: Changes = Changes()) -> Entry:  # noqa: B008 - immutable
        """Make a directory. Raises AlreadyExists."""
        self.must_be_writable(path)
        if await self.find_entry(path) is not None:
            raise AlreadyExists("the name is taken", path)
        entry = self._with_changes(self.new_directory(path, time.time_ns()), changes)
        with self.changing():
            if self.cached(path) is not None:
                raise AlreadyExists("the name is taken", path)
            self.owe(path, Action.MARKER, entry, base=ABSENT)
            if changes != Changes():
                self.owe_attributes({path: entry})
            self.touch_parent(path)
            self.memory.made_empty(path, entry)
        await self.settle([path])
        return entry

    async def rmdir(self, path: str) -> None:
        """Remove an empty directory. Raises NotFound, NotDirectory, DirectoryNotEmpty."""
        self.must_be_writable(path)
        entry = await self.stat(path)
        if entry.kind is not Kind.DIRECTORY:
            raise NotDirectory("not a directory", path)
        if await self.list(path):
            raise DirectoryNotEmpty("directory not empty", path)
        with self.changing():
            self.remove_directory_rows(path, entry)
            self.touch_parent(path)
        self.memory.change(path, None)
        await self.settle([path])

    def remove_directory_rows(self, path: str, entry: Entry) -> None:
        """Journal the end of a directory: its marker and its attribute object."""
        row = self.journal.get(self.backend.identity, self.directory_key(path))
        if (
            row is not None and row.action is Action.MARKER and row.never_stored
            and not self.backend.capabilities.directories
        ):  # fmt: skip
            # It never reached the store. Some stores would take a marker's end for that of a file which has the name now.
            self.journal.forget(row.store, row.key)
        else:
            self.owe(path, Action.DELETE, entry)
        for place in self.places(path)[1:]:
            # A store with real directories made one there with the first child.
            row = Pending(self.backend.identity, place, place, 0, Action.DELETE, self.prefix, path)
            self.journal.write(row)
        self.marked.pop(path, None)
        if self.posix:
            self.journal.attributes.drop(self.backend.identity, self.prefix, path)
            meta = self.meta_key(path)
            parent = meta.rpartition("/")[0] + "/"
            self.journal.write(Pending(self.backend.identity, meta, parent, 0, Action.DELETE, self.prefix, path))

    async def remove(self, path: str) -> None:
        """Remove one name of a file. Raises NotFound, IsDirectory."""
        self.must_be_writable(path)
        entry = await self.stat(path)
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        await self.know_links(entry)
        with self.changing():
            entry = self.cached(path) or entry
            self.remove_file_rows(path, entry)
            self.touch_parent(path)
            self.relink(entry, {path: None}, time.time_ns())
            self.memory.change(path, None)
        await self.settle([path])

    def remove_file_rows(self, path: str, entry: Entry) -> None:
        """Journal the end of a file's key; what never reached the store needs no request."""
        fresh = self.uncommitted.pop(path, None)
        if fresh is not None:
            self.journal.forget_held(self.backend.identity, self.key(path))
        row = self.journal.get(self.backend.identity, self.key(path))
        if row is None:
            if fresh is None or fresh.base != ABSENT:
                self.owe(path, Action.DELETE, None, base=entry.version if fresh is None else fresh.base)
            return
        if row.never_stored:
            self.journal.forget(row.store, row.key)
            self.owe_no_attributes(path)
        else:
            self.owe(path, Action.DELETE, None, base=entry.version)
        if row.staging:
            self.drop_staging(row.staging)

    def relink(self, entry: Entry, moves: Mapping[str, str | None], now: int) -> tuple[str, ...]:
        """Names of a hard-linked file change (old → new, None: removed): tell the others, at ctime ``now``. Returns all."""
        if not entry.links:
            return ()
        renamed = (moves.get(name, name) for name in entry.links)
        names = tuple(sorted({name for name in renamed if name is not None}))
        links = names if len(names) > 1 else ()
        for name in names:
            if name in moves.values():
                continue
            known = self.cached(name)
            if known is None or known.ino != entry.ino:
                continue  # a foreign writer removed or replaced it
            made = altered(known, links=links, ctime_ns=now)
            if name in self.uncommitted:
                self.uncommitted[name] = replace(self.uncommitted[name], entry=made)
            else:
                self.owe_attributes({name: made})
            self.memory.change(name, made)
        return links

    async def make(self, path: str, kind: Kind, changes: Changes, *, target: str = "", rdev: int = 0) -> Entry:
        """Make a symlink, FIFO, socket or device node. Raises AlreadyExists, Unsupported (``posix = "off"``)."""
        self.must_be_writable(path)
        if not self.posix:
            raise Unsupported(f'a {kind} needs attributes, which this route does not keep (posix = "off")', path)
        if await self.find_entry(path) is not None:
            raise AlreadyExists("the name is taken", path)
        now, d = time.time_ns(), self.defaults
        entry = Entry(
            kind, size=len(target.encode(errors="surrogateescape")), mode=d.mode, uid=d.uid, gid=d.gid, atime_ns=now,
            mtime_ns=now, ctime_ns=now, ino=self.inode(f"{self.key(path)}|{now}"), target=target, rdev=rdev,
        )  # fmt: skip
        entry = self._with_changes(entry, changes)
        with self.changing():
            self.owe(path, Action.PUT, entry, base=ABSENT)
            self.touch_parent(path)
        self.memory.change(path, entry)
        await self.settle([path])
        return entry

    async def link(self, source: str, target: str) -> Entry:
        """Give a file one more name. Raises AlreadyExists, NotFound, Unsupported."""
        self.must_be_writable(target)
        if not self.posix:
            raise Unsupported('hard links need attributes, which this route does not keep (posix = "off")', target)
        made = await self.while_it_stands(lambda: self._link(source, target))
        # The first name is where it was; that the two are one file is in their records.
        await self.settle([source, target], awaited=[target])
        return self.cached(target) or made

    async def separate(self, source: str, target: str) -> None:
        """Fetch the bytes of a file whose copy is pending, if they are at a key that is in the way of ``target``.

        A file cannot be copied from ``a`` to ``a/b``, nor the other way round, where directories are real: the one must go
        before the other comes.
        """
        entry = await self.stat(source)
        if entry.kind is not Kind.FILE or entry.key is None or entry.staging is not None:
            return
        wanted = self.key(target)
        if not (wanted.startswith(f"{entry.key}/") or entry.key.startswith(f"{wanted}/")):
            return
        fetched = str(await self.materialize(source, entry))
        with self.changing():
            now = self.cached(source)
            if now is not None and (now.key, now.version) == (entry.key, entry.version):
                made = altered(now, version=None, key=None, staging=fetched)
                self.owe(source, Action.PUT, made, staging=fetched)
                self.memory.change(source, made)
                return
        self.services.staging.remove(fetched)

    @abstractmethod
    async def materialize(self, path: str, entry: Entry) -> Path:
        """A copy of a file's bytes in staging."""

    async def _link(self, source: str, target: str) -> Entry:
        await self.separate(source, target)
        entry = await self.stat(source)
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("a directory has one name only", source)
        if await self.find_entry(target) is not None:
            raise AlreadyExists("the name is taken", target)
        await self.know_links(entry)
        with self.changing():
            entry = self.cached(source) or entry
            self.must_stand(source, entry)
            names = tuple(sorted({*entry.links, source, target}))
            made = altered(entry, links=names, ctime_ns=time.time_ns())
            if source in self.uncommitted:
                closed = self.closed_entry(source)
                if closed is not None:
                    linked = replace(closed, links=names, ctime_ns=made.ctime_ns)
                    self.owe_attributes({source: linked})
                    closed = self.owe_same_bytes(source, closed, target, linked, ABSENT)
                self.uncommitted[target] = Uncommitted(made, ABSENT, closed)
            else:
                made_target = self.owe_same_bytes(source, entry, target, made, ABSENT)
                self.memory.change(target, made_target)
            self.relink(made, {target: target}, made.ctime_ns)
            self.touch_parent(target)
        if source in self.uncommitted:
            self.memory.change(target, made)
        return made

    def closed_entry(self, path: str) -> Entry | None:
        """What others see of a file that is being written here: the version that was closed last, if there is one."""
        row = self.journal.get(self.backend.identity, self.key(path))
        if row is not None:
            return None if row.action is Action.DELETE else self.from_pending(row)
        closed = self.uncommitted[path].closed
        if closed is None or (closed.version is None and closed.staging is None):
            return None
        if closed.staging is not None or closed.key is not None:
            # Another process has carried it out: under which version is not known here.
            return replace(closed, version=None, staging=None, key=None)
        return closed

    def owe_same_bytes(self, source: str, entry: Entry, target: str, made: Entry, base: str | None) -> Entry:
        """Journal that ``target`` gets the bytes ``source`` has, pending or stored; returns the entry of ``target``."""
        row = self.journal.get(self.backend.identity, self.key(source)) if entry.key is None else None
        if entry.kind is not Kind.FILE:
            made = altered(made, version=None, staging=None, key=None)
            self.owe(target, Action.PUT, made, base=base)
        elif row is not None and row.action is Action.PUT and row.staging is not None:
            made = altered(made, version=None, staging=row.staging, key=None)
            self.owe(target, Action.PUT, made, base=base, staging=row.staging)
        else:
            made = altered(made, staging=None, key=entry.key or self.key(source))
            # Metadata are copied with the bytes: the new name's differ in the time of this change, and in links.
            self.owe(
                target, Action.COPY, made, base=base, source=made.key, source_version=entry.version,
                carried=made.ino == entry.ino and self.says_all(source),
            )  # fmt: skip
        return made

    async def rename(self, source: str, target: str, *, replace: bool = True, exchange: bool = False) -> None:
        """Move a name; ``replace`` False refuses an existing target, ``exchange`` swaps two.

        Raises
        ------
        NotFound, AlreadyExists, IsDirectory, NotDirectory, DirectoryNotEmpty
        InvalidName
            A directory into itself.
        """
        self.must_be_writable(source)
        self.must_be_writable(target)
        if f"{target}/".startswith(f"{source}/") and target != source:
            raise InvalidName("a directory cannot move into itself", target)
        await self.while_it_stands(lambda: self._rename(source, target, replace=replace, exchange=exchange))
        await self.settle([source, target])

    async def _rename(self, source: str, target: str, *, replace: bool, exchange: bool) -> None:
        await self.separate(source, target)
        moving, there = await self.stat(source), await self.find_entry(target)
        if exchange:
            if there is None:
                raise NotFound("no such file or directory", target)
            await exchange_files(self, source, moving, target, there)
        else:
            if there is not None and not replace:
                raise AlreadyExists("the name is taken", target)
            if source == target or (there is not None and there.links and there.ino == moving.ino):
                return
            if moving.kind is Kind.DIRECTORY:
                if there is not None and there.kind is not Kind.DIRECTORY:
                    raise NotDirectory("not a directory", target)
                if there is not None and await self.list(target):
                    raise DirectoryNotEmpty("directory not empty", target)
                await rename_directory(self, source, moving, target, there)
            else:
                if there is not None and there.kind is Kind.DIRECTORY:
                    raise IsDirectory("is a directory", target)
                await self.know_links(moving)
                if there is not None:
                    await self.know_links(there)
                await self.sync_over(moving, there)
                rename_file(self, source, moving, target, there)
