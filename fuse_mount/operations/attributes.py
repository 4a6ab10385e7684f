"""Attributes of nodes, and what statfs says of the whole."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import InvalidName, ReadOnly
from fsdriver.fuse_mount.openstate import OpenState
from fsdriver.fuse_mount.protocol import (
    ATTR,
    ATTR_HEAD,
    NAME_MAX,
    SECOND,
    SETATTR_IN,
    STATFS_OUT,
    STATX,
    STATX_BASIC_STATS,
    STATX_HEAD,
    SetattrValid,
)
from fsdriver.fuse_mount.synthetic import Probe

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.inodes import Node
    from fsdriver.fuse_mount.session import Reply, Request

    Answer = Reply | Coroutine[Any, Any, Reply]

PEBIBYTE: Final = 1 << 50
STATFS_BLOCK: Final = 4096
PLENTY: Final = 1 << 40
"""Inodes reported: no store counts them."""

_TO_ROUTE: Final = (
    SetattrValid.MODE
    | SetattrValid.UID
    | SetattrValid.GID
    | SetattrValid.ATIME
    | SetattrValid.MTIME
    | SetattrValid.CTIME
)


def getattr_(fs: FileSystem, request: Request) -> Answer:
    """GETATTR."""
    node = fs.table[request.nodeid]
    found = fs.known_for(node)
    return fs.attr_reply(node, *found) if found is not None else _getattr(fs, node)


async def _getattr(fs: FileSystem, node: Node) -> Reply:
    return fs.attr_reply(node, await fs.entry(node))


def statx(fs: FileSystem, request: Request) -> Answer:
    """STATX: the basic fields; no store keeps a time of birth."""
    return _statx(fs, fs.table[request.nodeid])


async def _statx(fs: FileSystem, node: Node) -> Reply:
    reply = fs.attr_reply(node, await fs.entry(node))
    valid, valid_ns, _ = ATTR_HEAD.unpack_from(reply)
    (ino, size, blocks, at, mt, ct, at_ns, mt_ns, ct_ns, mode, nlink, uid, gid, rdev, blksize, _) = ATTR.unpack_from(
        reply, ATTR_HEAD.size
    )
    return STATX_HEAD.pack(valid, valid_ns, 0) + STATX.pack(
        STATX_BASIC_STATS, blksize, 0, nlink, uid, gid, mode, ino, size, blocks, 0, at, at_ns, 0, 0, 0, 0, ct, ct_ns, 0,
        mt, mt_ns, 0, os.major(rdev), os.minor(rdev), 0, 0,
    )  # fmt: skip


def setattr_(fs: FileSystem, request: Request) -> Answer:
    """SETATTR: size, mode, owner and times."""
    fields = SETATTR_IN.unpack_from(request.body)
    valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = fields
    flags = SetattrValid(valid)
    node = fs.table[request.nodeid]
    if isinstance(node.synthetic, Probe):
        return _truncate_probe(fs, node, size if SetattrValid.SIZE in flags else None)
    if node.route is None:
        raise ReadOnly("this is part of the mount and cannot be changed", node.path())
    now = time.time_ns()
    changes = Changes(
        mode=mode & 0o7777 if SetattrValid.MODE in flags else None,
        uid=uid if SetattrValid.UID in flags else None,
        gid=gid if SetattrValid.GID in flags else None,
        atime_ns=_time(flags, SetattrValid.ATIME, SetattrValid.ATIME_NOW, atime, atime_ns, now),
        mtime_ns=_time(flags, SetattrValid.MTIME, SetattrValid.MTIME_NOW, mtime, mtime_ns, now),
    )
    new_size = size if SetattrValid.SIZE in flags else None
    return _setattr(fs, node, changes, new_size, flags)


def _time(
    flags: SetattrValid, given: SetattrValid, use_now: SetattrValid, seconds: int, nanoseconds: int, now: int
) -> int | None:
    if given not in flags:
        return None
    if use_now in flags:
        return now
    signed = seconds - (1 << 64) if seconds >> 63 else seconds
    return signed * SECOND + nanoseconds


def _truncate_probe(fs: FileSystem, node: Node, size: int | None) -> Reply:
    assert isinstance(node.synthetic, Probe)
    if size is not None:
        os.ftruncate(node.synthetic.descriptor, size)
    entry = fs.known_entry(node)
    assert entry is not None
    return fs.attr_reply(node, entry)


async def _setattr(fs: FileSystem, node: Node, changes: Changes, size: int | None, flags: SetattrValid) -> Reply:
    entry: Entry | None = None
    if size is not None:
        entry = await _truncate(fs, node, size, by_handle=SetattrValid.FH in flags)
        if SetattrValid.KILL_SUIDGID in flags:
            await _kill(fs, node, entry)
    changes = (
        _with_killed_bits(await fs.entry(node), changes, flags)
        if flags & (SetattrValid.UID | SetattrValid.GID)
        else changes
    )
    if flags & _TO_ROUTE:
        entry = await fs.open_files.set_attributes(node, changes)
        _set_staged_times(node.opened, changes)
    return fs.attr_reply(node, entry if entry is not None else await fs.entry(node))


def _set_staged_times(state: OpenState | None, changes: Changes) -> None:
    """Bytes that were written take their time from the staging file; for unwritten ones a new time is no new content."""
    if state is not None and state.staged is not None and changes.mtime_ns is not None and state.touched():
        descriptor = state.staged.fileno()
        os.utime(descriptor, ns=(changes.atime_ns or os.fstat(descriptor).st_atime_ns, changes.mtime_ns))


def _with_killed_bits(entry: Entry, changes: Changes, flags: SetattrValid) -> Changes:
    """A change of owner clears set-user-ID, and set-group-ID of what the group may execute (chown(2))."""
    if entry.kind is Kind.DIRECTORY or SetattrValid.MODE in flags:
        return changes
    mode = entry.mode & ~0o4000
    if mode & 0o010:
        mode &= ~0o2000
    if mode != entry.mode:
        changes = Changes(
            mode=mode, uid=changes.uid, gid=changes.gid, atime_ns=changes.atime_ns, mtime_ns=changes.mtime_ns
        )
    return changes


async def _kill(fs: FileSystem, node: Node, entry: Entry) -> None:
    if node.entry is None:
        node.entry = entry
        await fs.open_files.kill_privileges(node)
        node.entry = None
    else:
        await fs.open_files.kill_privileges(node)


async def _truncate(fs: FileSystem, node: Node, size: int, *, by_handle: bool) -> Entry:
    """Set the size; a file nobody has open is staged for the moment, empty if nothing of it stays."""
    if node.kind is not Kind.FILE:
        raise InvalidName("only regular files have a size to set", node.path())
    state = node.opened
    if state is None:
        state = await fs.open_files.open(node, writable=True, truncate=size == 0, kill=False)
        try:
            return await _set_size(fs, node, state, size, commit=True)
        finally:
            await fs.open_files.release(node, writable=True)
    return await _set_size(fs, node, state, size, commit=not by_handle and not state.writers)


async def _set_size(fs: FileSystem, node: Node, state: OpenState, size: int, *, commit: bool) -> Entry:
    async with node.gate:
        await fs.open_files.stage(node, state)
        await fs.open_files.truncate(node, state, size)
    assert state.staged is not None
    assert node.route is not None
    path = node.path()
    if commit and path is not None:
        node.entry = await node.route.commit(path, state.staged)
    return await fs.entry(node)


def access(_: FileSystem, __: Request) -> Reply:
    """ACCESS: the kernel checks permissions itself (``default_permissions``)."""
    return b""


def destroy(_: FileSystem, __: Request) -> Reply:
    """DESTROY: the daemon sees the end of the mount by its device."""
    return b""


def statfs(fs: FileSystem, request: Request) -> Reply:
    """STATFS: 1 PiB or the route's quota."""
    route = fs.table[request.nodeid].route
    total = (route.policy.quota if route is not None else None) or PEBIBYTE
    blocks = total // STATFS_BLOCK
    return STATFS_OUT.pack(blocks, blocks, blocks, PLENTY, PLENTY, STATFS_BLOCK, NAME_MAX, STATFS_BLOCK, 0)
