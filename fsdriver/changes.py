"""Changing names and attributes of one route: every change becomes rows of the journal and is remembered at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fsdriver.attributes import to_record
from fsdriver.backends.base import ABSENT, Backend
from fsdriver.directories import split
from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    InvalidName,
    IsDirectory,
    NotDirectory,
    NotFound,
    ReadOnly,
    Stale,
    Unsupported,
)
from fsdriver.journal import Action, AttributeChange, Pending
from fsdriver.lookup import Defaults, Lookup, Uncommitted
from fsdriver.names import RESERVED
from fsdriver.renaming import rename_directory, rename_file
from fsdriver.runtime import on_loop
from fsdriver.services import Policy, Services


class NameChanges(Lookup):
    """Everything that changes a route but bytes of files."""

    def __init__(self, backend: Backend, prefix: str, policy: Policy, defaults: Defaults, services: Services) -> None:
        super().__init__(
            backend, prefix, services.journal, services.epochs, defaults, ttl=policy.ttl, negative_ttl=policy.negative_ttl,
            posix=policy.posix, foreign_metadata=policy.foreign_metadata,
        )  # fmt: skip
        self.policy = policy
        self.services = services

    # -- the journal ---------------------------------------------------------------------------------------------------

    def must_be_writable(self, path: str) -> None:
        """Raise ReadOnly, or InvalidName for what the route keeps for itself."""
        if self.policy.read_only:
            raise ReadOnly("this route is read-only", path)
        if path.partition("/")[0] == RESERVED:
            raise InvalidName("the name .fsdriver is reserved at the root of a route", path)

    def owe(
        self,
        path: str,
        action: Action,
        entry: Entry | None,
        *,
        base: str | None = None,
        staging: str | None = None,
        source: str | None = None,
        source_version: str | None = None,
        held: bool = False,
    ) -> Pending:
        """Journal what shall become of the key of a path, and its attribute record; call inside a transaction."""
        directory = action is Action.MARKER or (entry is not None and entry.kind is Kind.DIRECTORY)
        key = self.directory_key(path) if directory else self.key(path)
        record = to_record(replace(entry, version=None)) if entry is not None and action is not Action.DELETE else None
        row = Pending(
            self.backend.identity, key, self.directory_key(split(path)[0]), 0, action, self.prefix, path, base, staging, source,
            source_version, entry.size if entry else 0, record, held=held,
        )  # fmt: skip
        written = self.journal.write(row)
        if action is Action.DELETE and not directory:
            self._owe_no_attributes(path)
        elif not directory:
            self.owe_attributes({path: entry})
        return written

    def _owe_no_attributes(self, path: str) -> None:
        """A name goes: so does its record, if there is one."""
        parent, name = split(path)
        stored = self.memory.at(parent).attributes
        if stored is None or name in stored.entries or self.owes_attributes(parent):
            self.owe_attributes({path: None})

    def owe_attributes(self, entries: Mapping[str, Entry | None]) -> None:
        """Journal attribute records; a directory's own goes to its own attribute object."""
        if not self.posix:
            return
        changes = []
        for path, entry in entries.items():
            directory, name = (path, "") if entry is not None and entry.kind is Kind.DIRECTORY else split(path)
            record = to_record(entry) if entry is not None else None
            changes.append(AttributeChange(self.backend.identity, self.prefix, directory, name, record))
            if name and record is not None and not self._has_attributes(directory):
                # The first record of a directory brings the directory's own along: its times are kept from now on.
                own = self.cached(directory)
                if own is not None:
                    changes.append(AttributeChange(self.backend.identity, self.prefix, directory, "", to_record(own)))
        self.journal.write_attributes(changes)

    def owes_attributes(self, directory: str, name: str | None = None) -> bool:
        return self.journal.owes_attributes(self.backend.identity, self.prefix, directory, name)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """One step for whoever reads names and for the uploader: rows are written and remembered names follow."""
        with self.memory.lock, self.journal.transaction():
            yield

    async def settle(self, paths: Iterable[str]) -> None:
        """A change is journaled: wake the uploader, and in "through" mode wait for the tiers."""
        if self.policy.write == "through":
            await self.wait_for(list(paths))
        else:
            self.services.uploader.wake()

    async def wait_for(self, paths: Sequence[str], timeout: float | None = None) -> None:
        """Wait until the tiers have all that is owed for some paths."""
        identity = self.backend.identity
        keys = {key for path in paths for key in ((self.key(path), self.directory_key(path)) if path else ())}
        directories = {d for path in paths for d in (path, split(path)[0])}
        for key in keys:
            self.services.uploader.forget_error(key)

        def owed() -> bool:
            rows = any((row := self.journal.get(identity, key)) is not None and not row.held for key in keys)
            return rows or any(self.owes_attributes(path) or self.owes_attributes(*split(path)) for path in paths)

        failed: Callable[[str], bool] = lambda key: key in keys or key in {f"{self.prefix}|{d}" for d in directories}  # noqa: E731
        await self.services.uploader.wait(owed, failed, timeout or self.policy.timeout)

    async def sync(self, path: str = "", timeout: float | None = None) -> None:
        """Wait until the tiers have everything at and below a path; raises the first failure."""
        prefix = self.directory_key(path)
        identity = self.backend.identity

        def owed() -> bool:
            rows = [row for row in self.journal.below(identity, prefix) if not row.held]
            one = self.journal.get(identity, self.key(path)) if path else None
            inside = f"{path}/" if path else ""
            lacking = (d for root, d, _ in self.journal.attribute_directories(identity) if root == self.prefix)
            return (
                bool(rows)
                or (one is not None and not one.held)
                or any(d == path or d.startswith(inside) for d in lacking)
            )

        await self.services.uploader.wait(owed, lambda _: True, timeout)

    async def announce(self, paths: Iterable[str]) -> None:
        """Tell the daemons of this host which paths changed."""
        if self.services.announce is not None:
            await on_loop()
            await self.services.announce(
                self.backend.identity, [self.key(path) if path else self.prefix for path in paths]
            )

    async def flush_attributes(self, directory: str) -> None:
        """Merge what the journal owes to one attribute object; another host's changes to it are kept."""
        identity, key, memory = self.backend.identity, self.meta_key(directory), self.memory.at(directory)
        stored = memory.attributes
        for _ in range(8):
            pending = {
                split(row.path)[1]
                for row in self.journal.children(identity, self.directory_key(directory))
                if row.action is not Action.DELETE and not row.key.endswith("/")
            }
            owed = {
                name: change
                for name, change in self.journal.attribute_changes(identity, self.prefix, directory).items()
                if name not in pending
            }
            if not owed:
                return
            if stored is None:
                stored = await self.stored_attributes(directory)
            merged = stored.merged({name: change.record for name, change in owed.items()})
            try:
                if merged.is_empty():
                    if stored.version:
                        await self.backend.delete(key, if_version=stored.version)
                    merged.version = ABSENT
                elif merged != stored:
                    merged.version = (await self.backend.put(key, merged.dump(), if_version=stored.version)).version
            except Stale:
                stored = None
                continue
            memory.attributes, memory.attributes_at = merged, self.memory.clock()
            self.journal.finish_attributes(owed.values())
            return
        raise Stale("its attribute object is changed by others faster than it can be merged", directory)

    # -- entries -------------------------------------------------------------------------------------------------------

    async def find_entry(self, path: str) -> Entry | None:
        """`stat`, with None for what does not exist."""
        try:
            return await self.stat(path)
        except NotFound:
            return None

    def _with_changes(self, entry: Entry, changes: Changes) -> Entry:
        fields = {name: value for name in Changes.__slots__ if (value := getattr(changes, name)) is not None}
        return replace(entry, **fields)

    def touch_parent(self, path: str) -> None:
        """A directory's mtime and ctime move when a name in it comes or goes."""
        parent = split(path)[0]
        own = self.cached(parent)
        if own is not None:
            now = time.time_ns()
            own = replace(own, mtime_ns=now, ctime_ns=now)
            self.memory.change(parent, own)
            if self._has_attributes(parent):
                self.owe_attributes({parent: own})

    def _has_attributes(self, directory: str) -> bool:
        """Whether a directory has an attribute object, or will: a plain bucket is not given one for a time alone."""
        stored = self.memory.at(directory).attributes
        return (stored is not None and not stored.is_empty()) or self.owes_attributes(directory)

    def _ensure_parents(self, path: str) -> None:
        """Directories above a published path exist from now on, whether or not anybody made them."""
        parent = split(path)[0]
        while parent:
            known = self.cached(parent)
            if known is not None:
                if known.kind is not Kind.DIRECTORY:
                    raise NotDirectory("not a directory", parent)
                return
            self.memory.change(parent, self.new_directory(parent, time.time_ns()))
            parent = split(parent)[0]

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
                made = self._with_changes(replace(known, ctime_ns=now), changes)
                if name in self.uncommitted:
                    self.uncommitted[name] = replace(self.uncommitted[name], entry=made)
                else:
                    self.owe_attributes({name: made})
                self.memory.change(name, made)
        if path not in self.uncommitted:
            await self.settle([path])
            await self.announce([path])
        return self.cached(path) or entry

    # -- making and removing names -------------------------------------------------------------------------------------

    async def mkdir(self, path: str, changes: Changes = Changes()) -> Entry:  # noqa: B008 - immutable
        """Make a directory. Raises AlreadyExists."""
        self.must_be_writable(path)
        if await self.find_entry(path) is not None:
            raise AlreadyExists("the name is taken", path)
        entry = self._with_changes(self.new_directory(path, time.time_ns()), changes)
        with self.changing():
            self.owe(path, Action.MARKER, entry)
            if changes != Changes():
                self.owe_attributes({path: entry})
            self.touch_parent(path)
        self.memory.made_empty(path, entry)
        await self.settle([path])
        await self.announce([path])
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
        await self.announce([path])

    def remove_directory_rows(self, path: str, entry: Entry) -> None:
        """Journal the end of a directory: its marker and its attribute object."""
        self.owe(path, Action.DELETE, entry)
        if self.posix:
            self.journal.drop_attributes(self.backend.identity, self.prefix, path)
            meta = self.meta_key(path)
            parent = meta.rpartition("/")[0] + "/"
            self.journal.write(Pending(self.backend.identity, meta, parent, 0, Action.DELETE, self.prefix, path))

    async def remove(self, path: str) -> None:
        """Remove one name of a file. Raises NotFound, IsDirectory."""
        self.must_be_writable(path)
        entry = await self.stat(path)
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        with self.changing():
            entry = self.cached(path) or entry
            self.remove_file_rows(path, entry)
            self.touch_parent(path)
            self.relink(entry, {path: None}, time.time_ns())
            self.memory.change(path, None)
        await self.settle([path])
        await self.announce([path])

    def remove_file_rows(self, path: str, entry: Entry) -> None:
        """Journal the end of a file's key; what never reached the store needs no request."""
        fresh = self.uncommitted.pop(path, None)
        row = self.journal.get(self.backend.identity, self.key(path))
        if row is None:
            if fresh is None or fresh.base != ABSENT:
                self.owe(path, Action.DELETE, None, base=entry.version if fresh is None else fresh.base)
            return
        if row.base == ABSENT and not row.inflight:
            self.journal.forget(row.store, row.key)
            self._owe_no_attributes(path)
        else:
            self.owe(path, Action.DELETE, None, base=entry.version)
        staging = self.services.staging
        if row.staging and not self.journal.uses(row.staging) and staging.opened(row.staging) is None:
            staging.remove(row.staging)

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
            made = replace(known or entry, links=links, ctime_ns=now)
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
        await self.announce([path])
        return entry

    async def link(self, source: str, target: str) -> Entry:
        """Give a file one more name. Raises AlreadyExists, NotFound, Unsupported."""
        self.must_be_writable(target)
        if not self.posix:
            raise Unsupported('hard links need attributes, which this route does not keep (posix = "off")', target)
        entry = await self.stat(source)
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("a directory has one name only", source)
        if await self.find_entry(target) is not None:
            raise AlreadyExists("the name is taken", target)
        with self.changing():
            entry = self.cached(source) or entry
            names = tuple(sorted({*entry.links, source, target}))
            made = replace(entry, links=names, ctime_ns=time.time_ns())
            if source in self.uncommitted:
                self.uncommitted[target] = Uncommitted(made, ABSENT)
            else:
                made_target = self.owe_same_bytes(source, entry, target, made, ABSENT)
                self.memory.change(target, made_target)
            self.relink(made, {target: target}, made.ctime_ns)
            self.touch_parent(target)
        if source in self.uncommitted:
            self.memory.change(target, made)
        await self.settle([source, target])
        await self.announce([source, target])
        return self.cached(target) or made

    def owe_same_bytes(self, source: str, entry: Entry, target: str, made: Entry, base: str | None) -> Entry:
        """Journal that ``target`` gets the bytes ``source`` has, pending or stored; returns the entry of ``target``."""
        row = self.journal.get(self.backend.identity, self.key(source)) if entry.key is None else None
        if entry.kind is not Kind.FILE:
            made = replace(made, version=None, staging=None, key=None)
            self.owe(target, Action.PUT, made, base=base)
        elif row is not None and row.action is Action.PUT and row.staging is not None:
            made = replace(made, version=None, staging=row.staging, key=None)
            self.owe(target, Action.PUT, made, base=base, staging=row.staging)
        else:
            made = replace(made, staging=None, key=entry.key or self.key(source))
            self.owe(target, Action.COPY, made, base=base, source=made.key, source_version=entry.version)
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
        moving, there = await self.stat(source), await self.find_entry(target)
        if exchange:
            if there is None:
                raise NotFound("no such file or directory", target)
            await self.exchange(source, moving, target, there)
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
                rename_file(self, source, moving, target, there)
        await self.settle([source, target])
        await self.announce([source, target])

    async def exchange(self, first: str, one: Entry, second: str, other: Entry) -> None:
        """Swap two names."""
        raise NotImplementedError
