"""Opening and releasing inodes: what each stands on while it is open, and whether the kernel uses that directly.

All open files of an inode share one state. Its mode is chosen at the first open and stays until the last release, as the
kernel demands: it refuses to mix passthrough with other opens, or two backing files.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from fsdriver.cache import Reader
from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import FsdriverError, IsDirectory, Stale
from fsdriver.writeback.staging import StagedReader

from .openstate import OpenState
from .parked import Parked
from .passthrough import Passthrough

if TYPE_CHECKING:
    from fsdriver.routes.reading import AnyReader
    from fsdriver.writeback.staging import StagedFile

    from .inodes import Node, NodeTable

log = logging.getLogger(__name__)

SMALL: Final = 1 << 20
"""Bytes of a file that is one READ request."""
_Identity: TypeAlias = tuple[int, int]


class OpenFiles:
    """Opens and releases inodes of one mount.

    Parameters
    ----------
    table : NodeTable
    passthrough : Passthrough
    """

    def __init__(self, table: NodeTable, passthrough: Passthrough) -> None:
        self._table = table
        self._passthrough = passthrough
        self._parked = Parked(self._let_go)
        self.stale = 0

    # -- opening -----------------------------------------------------------------------------------------------------

    async def open(
        self, node: Node, *, writable: bool, truncate: bool, kill: bool, synchronous: bool = False
    ) -> OpenState:
        """Add one open to a node; see `release`.

        Parameters
        ----------
        writable : bool
        truncate : bool
            O_TRUNC: what is there is dropped, and is not fetched for it.
        synchronous : bool
            O_SYNC or O_DSYNC: without passthrough the kernel follows each write with an FSYNC.
        kill : bool
            Clear set-user-ID and set-group-ID (``FUSE_OPEN_KILL_SUIDGID``).

        Raises
        ------
        Stale
            The name stands for other bytes now: the kernel looks it up again.
        """
        async with node.gate:
            state = node.opened
            if state is None:
                state = await self._first(node, writable=writable, truncate=truncate, synchronous=synchronous)
                node.opened = state
            elif writable or truncate:
                await self.stage(node, state)
                if truncate:
                    await self.truncate(node, state, 0)
                if synchronous and state.backing_id is not None:
                    await self._hold_synchronous(node, state)
            state.handles += 1
            state.writers += writable
            try:
                if kill:
                    await self.kill_privileges(node)
            except BaseException:  # an open that was interrupted holds nothing either
                state.writers -= writable
                await self._close(node, state)
                raise
            return state

    def open_now(self, node: Node) -> OpenState | None:
        """As `open` for reading, where that takes neither the store nor the disk; None where it does.

        A small file whose pages the kernel keeps is not opened here before a READ says that some of them are gone.
        """
        if not node.gate.enter_now():
            return None
        try:
            if node.opened is None:
                node.opened = self._first_now(node)
            if node.opened is not None:
                node.opened.handles += 1
            return node.opened
        finally:
            node.gate.leave()

    def _first_now(self, node: Node) -> OpenState | None:
        path, route = node.path(), node.route
        if path is None or route is None:
            return None
        entry = route.cached(path)
        if entry is None or entry.kind is not Kind.FILE or self._table.changed(node, entry):
            return None
        parked = self._take_parked(node, entry, reading=True)
        if parked is not None:
            return parked
        if not node.pages_valid or entry.size > SMALL or entry.version is None or entry.staging is not None:
            return None
        node.entry = entry
        return OpenState(route.open_later(path, entry))

    def _take_parked(self, node: Node, entry: Entry, *, reading: bool) -> OpenState | None:
        parked = self._parked.take(node)
        if parked is None:
            return None
        if reading and parked.reads(entry):
            node.entry = entry
            return parked
        self._let_go(parked)
        return None

    async def _hold_synchronous(self, node: Node, state: OpenState) -> None:
        """The kernel syncs each write to the local file and tells nobody: what shall become of the file is journaled ahead."""
        path = node.path()
        if path is not None and node.route is not None and state.staged is not None:
            state.staged.committed = None
            await node.route.fsync(path, state.staged)

    async def _first(self, node: Node, *, writable: bool, truncate: bool, synchronous: bool) -> OpenState:
        path, route = node.path(), node.route
        if path is None or route is None:
            raise Stale("it was removed")
        entry = route.cached(path) or await route.stat(path)
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        if self._table.changed(node, entry):
            self.stale += 1
            raise Stale("it was replaced by a foreign writer", path)
        parked = self._take_parked(node, entry, reading=not (writable or truncate))
        if parked is not None:
            return parked
        state = OpenState()
        if truncate:
            state.staged = route.new_file()
            try:
                entry = await route.create(path, state.staged, Changes())
            except BaseException:  # an open that was interrupted holds nothing either
                await route.release(None, state.staged)
                raise
        elif writable:
            await self._stage_first(node, state, path, entry)
        else:
            state.reader = await route.open(path, entry, in_place=True)
            self._must_be(node, path, entry, state.reader)
        node.entry = entry
        if not (synchronous and writable):
            self.choose_mode(node, state, entry)
        return state

    def _must_be(self, node: Node, path: str, entry: Entry, reader: AnyReader) -> None:
        """Check that a reader is of the node's bytes: what was pending may have lost to a foreign writer a moment ago."""
        if isinstance(reader, StagedReader) or reader.key.version == entry.version:
            return
        if self._table.changed(node, replace(entry, staging=None, version=reader.key.version)):
            reader.close()
            self.stale += 1
            raise Stale("it was replaced by a foreign writer", path)

    async def _stage_first(self, node: Node, state: OpenState, path: str, entry: Entry) -> None:
        assert node.route is not None
        state.staged = await node.route.stage(path, entry, None)
        status = os.fstat(state.staged.fileno())
        state.untouched = status.st_size, status.st_mtime_ns

    def adopt(self, node: Node, staged: StagedFile, entry: Entry, *, synchronous: bool = False) -> OpenState:
        """The state of a node that was just created, with its first open; see `open`."""
        state = OpenState(staged=staged)
        state.handles = state.writers = 1
        node.entry, node.opened = entry, state
        if not synchronous:
            self.choose_mode(node, state, entry)
        return state

    def choose_mode(self, node: Node, state: OpenState, entry: Entry) -> None:
        """Passthrough for a complete local file, unless its mode has bits that a write must clear.

        Small files that are only read do without: the kernel keeps their pages from one open to the next, which saves
        registering the file, and asking for the attributes that a passthrough read makes stale.
        """
        if state.staged is None and entry.size <= SMALL:
            return
        descriptor = state.descriptor()
        if self._passthrough.enabled and descriptor is not None and not entry.mode & (stat.S_ISUID | stat.S_ISGID):
            state.backing_id = self._passthrough.try_register(descriptor)
        if state.backing_id is not None:
            node.pages_valid = False

    async def stage(self, node: Node, state: OpenState) -> StagedFile:
        """The staging file of an open node, made now if it was open for reading only; call with the gate held.

        Raises
        ------
        Stale
            The kernel holds another file than the one that can be written: the name gets a new node.
        """
        if state.staged is not None:
            return state.staged
        path, route = node.path(), node.route
        if path is None or route is None or node.entry is None:
            raise Stale("it was removed while it was open for reading only; it cannot be opened for writing any more")
        entry = route.cached(path) or await route.stat(path)
        if self._table.changed(node, entry):
            self.stale += 1
            raise Stale("it was replaced by a foreign writer", path)
        state.hold()
        try:
            staged = await route.stage(path, entry, state.reader)
        except Stale:
            self._abandon(node)
            raise
        if state.backing_id is not None and state.reader is not None:
            held = state.reader.fileno()
            if held is None or _identity(held) != _identity(staged.fileno()):
                await route.release(path, staged)
                self._abandon(node)
                raise Stale("the kernel reads another file than the one that can be written", path)
        status = os.fstat(staged.fileno())
        state.untouched = status.st_size, status.st_mtime_ns
        state.staged = staged
        node.entry = entry
        return staged

    async def truncate(self, node: Node, state: OpenState, size: int) -> None:
        """Set the size of an open node that is staged; call with the gate held."""
        staged, path, route = state.staged, node.path(), node.route
        assert staged is not None
        if size == 0 and path is not None and route is not None:
            await route.freeze(path, staged)
        os.ftruncate(staged.fileno(), size)
        state.untouched = None

    def _abandon(self, node: Node) -> None:
        """The next lookup gives the names a new node; open files keep this one."""
        self.stale += 1
        for parent, name in list(node.names):
            self._table.unlink(parent, name)

    async def kill_privileges(self, node: Node) -> None:
        """Clear set-user-ID, and set-group-ID of what the group may execute, as a write by another user does."""
        entry = node.entry
        if entry is None:
            return
        mode = entry.mode & ~stat.S_ISUID
        if mode & stat.S_IXGRP:
            mode &= ~stat.S_ISGID
        if mode != entry.mode:
            await self.set_attributes(node, Changes(mode=mode))

    async def set_attributes(self, node: Node, changes: Changes) -> Entry:
        """Set attributes of a node; of an unlinked one only as long as it is open."""
        path = node.path()
        if path is not None and node.route is not None:
            entry = await node.route.set_attributes(path, changes)
        else:
            if node.entry is None:
                raise Stale("it was removed")
            fields = {name: value for name in Changes.__slots__ if (value := getattr(changes, name)) is not None}
            entry = replace(node.entry, ctime_ns=time.time_ns(), **fields)
        if node.opened is not None or path is None:
            node.entry = entry
        return entry

    # -- releasing ---------------------------------------------------------------------------------------------------

    async def release(self, node: Node, *, writable: bool) -> None:
        """Take one open from a node; the last one commits late stores and lets go of the local file."""
        async with node.gate:
            if node.opened is not None:
                node.opened.writers -= writable
                await self._close(node, node.opened)

    def release_now(self, node: Node) -> bool:
        """As `release` of an open for reading, where nothing is to be committed; False where there may be."""
        if not node.gate.enter_now():
            return False
        try:
            state = node.opened
            if state is not None and state.staged is not None:
                return False
            if state is not None:
                state.handles -= 1
                if not state.handles:
                    self._closed(node, state, node.path())
            return True
        finally:
            node.gate.leave()

    async def _close(self, node: Node, state: OpenState) -> None:
        state.handles -= 1
        if state.handles > 0:
            return
        path, route = node.path(), node.route
        try:
            if state.staged is not None and route is not None:
                # It is sealed under an exclusive lock: neither a reader of the un-sealed file nor the kernel may have it.
                self._let_go(state)
                await route.release(path, state.staged)
                if state.staged.written and node.entry is not None:
                    # What was written here, whatever the name stands for by now: others may have replaced it.
                    node.content = route.staged_content(node.entry, state.staged)
                state.staged = None
        finally:
            self._closed(node, state, path)

    def _closed(self, node: Node, state: OpenState, path: str | None) -> None:
        node.opened = None
        node.entry = node.entry if path is None else None
        if path is not None and node.content is not None and self._may_park(state):
            self._parked.put(node, state)
        else:
            self._let_go(state)
        self._table.settle(node)

    def _may_park(self, state: OpenState) -> bool:
        """It has a complete file that the next open will want. Small ones have their pages in the kernel (`open_now`)."""
        if state.backing_id is not None:
            return not isinstance(state.reader, StagedReader) and state.reader is not None
        return (
            not self._passthrough.enabled
            and isinstance(state.reader, Reader)
            and state.reader.size > SMALL
            and state.descriptor() is not None
        )

    def unpark(self, node: Node) -> None:
        """Let go of what a node stood on that was closed a moment ago: its file is being moved or removed."""
        state = self._parked.take(node)
        if state is not None:
            self._let_go(state)

    def unpark_all(self) -> None:
        """Let go of all that was closed a moment ago."""
        self._parked.trim(0.0, 0)

    def hold_all(self) -> None:
        """Every open file gets hold of its bytes: evicting by hand spares what programs have open."""
        for node in self._table.nodes():
            if node.opened is not None:
                node.opened.hold()

    def prepare_removal(self, node: Node) -> None:
        """A name of a node goes: what is open gets hold of the bytes first."""
        self.unpark(node)
        if node.opened is not None:
            node.opened.hold()

    def _let_go(self, state: OpenState) -> None:
        if state.backing_id is not None:
            self._passthrough.release(state.backing_id)
            state.backing_id = None
        if state.reader is not None:
            state.reader.close()
            state.reader = None

    # -- the end -----------------------------------------------------------------------------------------------------

    async def close(self) -> list[FsdriverError | OSError]:
        """Release everything the kernel did not: it sends no RELEASE for what was open when the mount ended.

        Returns
        -------
        list of errors
            What could not be committed; its bytes stay in staging.
        """
        failures: list[FsdriverError | OSError] = []
        for node in self._table.nodes():
            state = node.opened
            if state is None:
                continue
            state.handles = min(state.handles, 1)
            try:
                await self.release(node, writable=False)
            except OSError as error:
                failures.append(error)
        self.unpark_all()
        return failures


def _identity(descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
