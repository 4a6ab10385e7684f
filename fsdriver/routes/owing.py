"""Changes of one route as rows of the journal: owing, and settling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from fsdriver.attributes import CARRIED, to_record
from fsdriver.entry import Changes, Entry, Kind, altered
from fsdriver.errors import (
    AccessDenied,
    BackendError,
    ContainerMissing,
    FsdriverError,
    InvalidName,
    NotDirectory,
    NotFound,
    ReadOnly,
    Stale,
)
from fsdriver.names import FOLDS, RESERVED, folded, split
from fsdriver.routes.records import Records
from fsdriver.runtime import on_loop, on_worker
from fsdriver.writeback.pending import STILL_READ, TRANSIENT, Action, Pending

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRIES: Final = 3
"""Further attempts at a change that met a file which another process was just busy with."""


class Owing(Records):
    """What a route owes to its store, and how to wait for it."""

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
        carried: bool = False,
    ) -> Pending:
        """Journal what shall become of the key of a path, and its attribute record; call inside a transaction.

        ``carried``: the object that comes of it says all that the record does (see `says_all`).
        """
        directory = action is Action.MARKER or (entry is not None and entry.kind is Kind.DIRECTORY)
        key = self.directory_key(path) if directory else self.key(path)
        record = None
        if entry is not None and action is not Action.DELETE:
            record = to_record(entry, version=None)
            if not self.posix:
                record[TRANSIENT] = True
            if carried:
                record[CARRIED] = True
        row = Pending(
            self.backend.identity, key, self.directory_key(split(path)[0]), 0, action, self.prefix, path, base, staging, source,
            source_version, entry.size if entry else 0, record, held=held,
        )  # fmt: skip
        written = self.journal.write(row)
        if action is Action.DELETE and not directory:
            self.owe_no_attributes(path)
        return written

    def drop_staging(self, path: str) -> None:
        """Once the transaction is committed: remove a staging file that no row needs and no process has open."""

        def drop() -> None:
            if not self.journal.uses(path):
                self.let_go_of(path)
                self.services.staging.remove_unless_open(path)

        self.journal.after_commit(drop)

    async def sync_over(self, moving: Entry, there: Entry | None) -> None:
        """Before one file takes the name of another that survives power loss and is owed: so does the one that comes."""
        if there is None or there.staging is None or moving.staging is None:
            return
        if self.journal.is_synced(there.staging) and not self.journal.is_synced(moving.staging):
            await on_loop()
            work = partial(self.services.staging.sync_paths, [moving.staging])
            await asyncio.get_running_loop().run_in_executor(None, work)
            self.journal.note_synced([moving.staging], asked=False)

    def let_go_of(self, path: str) -> None:
        """Before a staging file goes: bytes that were promised to survive power loss outlive the row that names them."""
        if self.journal.is_synced(path):
            self.journal.make_durable()
            self.journal.forget_synced(path)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """One step for whoever reads names and for the uploader: rows are written and remembered names follow."""
        with self.memory.telling_later(), self.journal.transaction():
            yield

    async def settle(self, paths: Iterable[str], awaited: Iterable[str] | None = None) -> None:
        """A change is journaled: tell the daemons, wake the uploader, and in "through" mode wait for the tiers.

        ``awaited`` are those of the paths that the tiers must have; all of them, if not given.
        """
        names = list(paths)
        # First of all: one of the daemons may be the uploader.
        await self.announce(names)
        if self.policy.write != "through":
            self.services.uploader.wake()
            return
        awaited = names if awaited is None else list(awaited)
        if await self._sent_at_once(awaited):
            return
        try:
            await on_loop()
            self.mark_ahead(awaited)
            await self.wait_for(awaited)
        except (AccessDenied, ReadOnly):
            self._withdraw(names)
            await self.announce(names)
            raise
        except FsdriverError as error:
            error.applied = True
            raise

    async def _sent_at_once(self, paths: Sequence[str]) -> bool:
        """Have a thread that waits carry out what some names owe. False: `wait_for` sees to what is left."""
        if not (self.lazy and self.still_marked(paths) and await on_worker()):
            return False
        uploader = self.services.uploader
        # The new name of a rename comes before the old one goes.
        if not all(uploader.carry_out_now(self.key(path)) for path in reversed(paths)):
            return False
        return not any(self.owes_attributes(path, "") or self.is_unknown_to_others(path) for path in paths)

    def _withdraw(self, paths: Sequence[str]) -> None:
        """The caller was told that the store does not allow it: it must not happen later. Bytes stay journaled."""
        identity = self.backend.identity
        with self.changing():
            for path in paths:
                for key in (self.key(path), self.directory_key(path)):
                    row = self.journal.get(identity, key)
                    if row is not None and row.staging is None and not row.inflight:
                        self.journal.forget(identity, key)
                parent, name = split(path)
                if self.journal.get(identity, self.key(path)) is None:
                    found = [
                        self.journal.attributes.of_name(identity, self.prefix, *at)
                        for at in ((parent, name), (parent, ""), (path, ""))
                    ]
                    self.journal.attributes.finish([change for change in found if change is not None])
                self.memory.forget_entry(path)

    async def wait_for(self, paths: Sequence[str], timeout: float | None = None) -> None:
        """Wait until the tiers have all that is owed for some paths."""
        identity = self.backend.identity
        keys = {key for path in paths for key in ((self.key(path), self.directory_key(path)) if path else ())}
        directories = {d for path in paths for d in (path, split(path)[0])}
        attributes = {f"{self.prefix}|{d}" for d in directories}
        for key in keys | attributes:
            self.services.uploader.waiters.forget(key)

        def owed() -> bool:
            rows = (self.journal.get(identity, key) for key in keys)
            spared = self.services.uploader.is_spared
            return any(row is not None and not spared(row) for row in rows) or self.must_wait(paths)

        failed: Callable[[str], bool] = lambda key: key in keys or key in attributes  # noqa: E731
        await self.services.uploader.wait(owed, failed, timeout or self.policy.timeout)

    async def sync(self, path: str = "", timeout: float | None = None) -> None:
        """Wait until the tiers have everything at and below a path; raises the first failure."""
        prefix, folds = self.directory_key(path), f"{self.root_key}{FOLDS}"
        identity = self.backend.identity

        def owed() -> bool:
            one = self.journal.get(identity, self.key(path)) if path else None
            inside = f"{path}/" if path else ""
            lacking = (d for root, d in self.journal.attributes.directories(identity) if root == self.prefix)
            return (
                self._owes_below(prefix)
                or one is not None
                or any(d == path or d.startswith(inside) for d in self.marked)
                or any(d == path or d.startswith(inside) for d in lacking)
                or (self.journal.owes_below(identity, folds) and bool(self.owed_below(path)))
            )

        await self.services.uploader.wait(owed, lambda _: True, timeout, drain=True)

    def _owes_below(self, prefix: str) -> bool:
        """Whether anything is owed for a key with a prefix but removals that wait for the last close of a reader."""
        identity, journal = self.backend.identity, self.journal
        if journal.owes_below(identity, prefix, deletions=False):
            return True
        if not journal.owes_below(identity, prefix):
            return False
        spared = journal.failed_with(identity, STILL_READ)
        return not (spared and all(map(self.services.uploader.is_spared, journal.below(identity, prefix))))

    async def announce(self, paths: Iterable[str]) -> None:
        """Tell the daemons of this host which paths changed."""
        if self.services.announce is not None:
            await on_loop()
            await self.services.announce(
                self.backend.identity, [self.key(path) if path else self.prefix for path in paths]
            )

    # -- entries -------------------------------------------------------------------------------------------------------

    def must_stand(self, path: str, entry: Entry) -> None:
        """Check inside a transaction that the bytes of a file still are where ``entry`` says.

        Another process may have sent them, or replaced them, a moment ago, and its word of it be on the way.

        Raises
        ------
        Stale
            They are not; the path is forgotten, so that the next `stat` finds them.
        """
        if entry.kind is not Kind.FILE or path in self.uncommitted:
            return
        key = self.key(path)
        row = self.journal.get(self.backend.identity, key)
        if row is None:
            stands = entry.version is not None and entry.key in {None, key}
        elif row.action is Action.PUT:
            stands = entry.staging == row.staging
        else:
            stands = row.action is Action.COPY and (entry.key, entry.version) == (row.source, row.source_version)
        if not stands:
            self.memory.forget_entry(path)
            raise Stale("another process changed or sent it a moment ago", path)

    async def while_it_stands(self, change: Callable[[], Awaitable[T]]) -> T:
        """Make a change again, with what is true now, that met a file another process was just busy with."""
        for _ in range(RETRIES):
            try:
                return await change()
            except Stale as error:
                log.debug("asked for again: %s", error)
        return await change()

    async def know_links(self, entry: Entry) -> None:
        """Look up all names of a hard-linked file: a change of one is told to the others."""
        for name in entry.links:
            if self.cached(name) is None:
                await self.find_entry(name)

    async def find_entry(self, path: str) -> Entry | None:
        """`stat`, with None for what does not exist."""
        try:
            return await self.stat(path)
        except NotFound:
            return None

    async def find_if_told(self, path: str) -> tuple[Entry | None, bool]:
        """`find_entry`, and whether anybody could tell: a store that is out of reach may hold what was never looked at.

        In "through" mode who writes waits for the store in any case.
        """
        out_of_reach = self.policy.write == "back" and self.backend.outage.active
        if out_of_reach and self.memory.last(path) is None and path not in self.uncommitted:
            return None, False
        try:
            return await self.find_entry(path), True
        except BackendError as error:
            if self.policy.write != "back" or not (error.temporary or isinstance(error, ContainerMissing)):
                raise
            return None, False

    def _with_changes(self, entry: Entry, changes: Changes, **others: Any) -> Entry:
        fields = {name: value for name in Changes.__slots__ if (value := getattr(changes, name)) is not None}
        return altered(entry, **fields, **others)

    def touch_parent(self, path: str, *, owed: bool = True) -> None:
        """A directory's mtime and ctime move when a name in it comes or goes.

        ``owed`` False: the name is of this process alone as yet; what its first commit sends brings the times along.
        """
        parent = split(path)[0]
        own = self.cached(parent)
        if own is not None:
            now = time.time_ns()
            own = altered(own, mtime_ns=now, ctime_ns=now)
            self.memory.change(parent, own)
            if owed and self.has_attributes(parent):
                self.owe_attributes({parent: own})

    async def ensure_parents(self, path: str) -> None:
        """Directories above a published path exist from now on, whether or not anybody made them.

        Raises
        ------
        NotDirectory
        """
        for directory in folded(path, self.root_key).values():
            if directory != path and self.cached(directory) is None:
                # Nothing of it is under its own key: without a marker no listing would show it.
                with self.changing():
                    self.owe(directory, Action.MARKER, self.new_directory(directory))
        parent = split(path)[0]
        while parent:
            known, told = await self.find_if_told(parent)
            if known is None and not told:
                return
            if known is not None:
                if known.kind is not Kind.DIRECTORY:
                    raise NotDirectory("not a directory", parent)
                return
            self.memory.change(parent, self.new_directory(parent, time.time_ns()))
            parent = split(parent)[0]
