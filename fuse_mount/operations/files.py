"""Open files: opening, creating, reading, writing, and the points where what was written is committed."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdriver.cache import write_all
from fsdriver.entry import Entry, Kind
from fsdriver.errors import AlreadyExists, NotFound, ReadOnly, Stale
from fsdriver.fuse_mount.handles import FileHandle
from fsdriver.fuse_mount.openstate import OpenState
from fsdriver.fuse_mount.protocol import (
    CREATE_IN,
    FLUSH_IN,
    FSYNC_IN,
    OPEN_IN,
    OPEN_KILL_SUIDGID,
    OPEN_OUT,
    RELEASE_IN,
    WRITE_IN,
    WRITE_KILL_SUIDGID,
    WRITE_OUT,
    OpenFlag,
    name_of,
)
from fsdriver.fuse_mount.synthetic import Probe, SyntheticFile

from .namespace import check_name, new_attributes

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.inodes import Node
    from fsdriver.fuse_mount.session import Reply, Request
    from fsdriver.writeback.staging import StagedFile

    Answer = Reply | Coroutine[Any, Any, Reply]

log = logging.getLogger(__name__)

_CHANGING: Final = os.O_ACCMODE | os.O_TRUNC


# -- opening ---------------------------------------------------------------------------------------------------------


def open_(fs: FileSystem, request: Request) -> Answer:
    """OPEN."""
    flags, open_flags = OPEN_IN.unpack_from(request.body)
    node = fs.table[request.nodeid]
    if node.synthetic is not None:
        return _open_synthetic(fs, node, flags)
    if (
        not (flags & _CHANGING or open_flags & OPEN_KILL_SUIDGID)
        and (state := fs.open_files.open_now(node)) is not None
    ):
        return _opened(fs, node, state, FileHandle(node))
    return _open(fs, node, flags, kill=bool(open_flags & OPEN_KILL_SUIDGID))


async def _open(fs: FileSystem, node: Node, flags: int, *, kill: bool) -> Reply:
    writable, truncate = flags & os.O_ACCMODE != os.O_RDONLY, bool(flags & os.O_TRUNC)
    state = await fs.open_files.open(
        node, writable=writable, truncate=truncate, kill=kill, synchronous=bool(flags & os.O_DSYNC)
    )
    return _opened(fs, node, state, FileHandle(node, writable=writable, commits=writable or truncate))


def _opened(fs: FileSystem, node: Node, state: OpenState, handle: FileHandle) -> bytes:
    flags = OpenFlag(0) if handle.commits else OpenFlag.NOFLUSH
    if state.backing_id is not None:
        return OPEN_OUT.pack(fs.handles.add_file(handle), flags | OpenFlag.PASSTHROUGH, state.backing_id)
    if node.pages_valid:
        flags |= OpenFlag.KEEP_CACHE
    node.pages_valid = True
    return OPEN_OUT.pack(fs.handles.add_file(handle), flags, 0)


def _open_synthetic(fs: FileSystem, node: Node, flags: int) -> bytes:
    what = node.synthetic
    if isinstance(what, Probe):
        if node.opened is None:
            node.opened = OpenState()
            node.opened.backing_id = fs.passthrough.register(what.descriptor)
        node.opened.handles += 1
        number = fs.handles.add_file(FileHandle(node, writable=True))
        return OPEN_OUT.pack(number, OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH, node.opened.backing_id or 0)
    if flags & os.O_ACCMODE != os.O_RDONLY:
        raise ReadOnly("this is part of the mount and cannot be changed", node.path())
    assert isinstance(what, SyntheticFile)
    number = fs.handles.add_file(FileHandle(node, data=what.render()))
    return OPEN_OUT.pack(number, OpenFlag.DIRECT_IO | OpenFlag.NOFLUSH, 0)


def create(fs: FileSystem, request: Request) -> Answer:
    """CREATE: make a file and open it; one that exists is opened instead, unless O_EXCL."""
    flags, mode, _, _ = CREATE_IN.unpack_from(request.body)
    name = name_of(request.body, CREATE_IN.size)
    check_name(name)
    return _create(fs, fs.table[request.nodeid], name, flags, mode, request.uid, request.gid)


async def _create(fs: FileSystem, parent: Node, name: str, flags: int, mode: int, uid: int, gid: int) -> Reply:
    route, path = fs.child_path(parent, name)
    changes = await new_attributes(fs, parent, uid, gid, mode, Kind.FILE)
    route.must_be_writable(path)
    staged = route.new_file()
    try:
        entry = await route.create(path, staged, changes, exclusive=True)
    except AlreadyExists:
        await route.release(None, staged)
        if flags & os.O_EXCL:
            raise
        return await _open_existing(fs, parent, name, flags)
    except BaseException:  # a call that was interrupted leaves no staging file either
        await route.release(None, staged)
        raise
    fs.table.unlink(parent, name)
    node = fs.table.lookup(parent, name, entry)
    return _created(fs, node, staged, entry, flags)


def _created(fs: FileSystem, node: Node, staged: StagedFile, entry: Entry, flags: int) -> bytes:
    state = fs.open_files.adopt(node, staged, entry, synchronous=bool(flags & os.O_DSYNC))
    opened = _opened(fs, node, state, FileHandle(node, writable=True, commits=True))
    return fs.entry_reply(node, entry) + opened


async def _open_existing(fs: FileSystem, parent: Node, name: str, flags: int) -> Reply:
    """Another host made the file between the kernel's lookup and now."""
    route, path = fs.child_path(parent, name)
    entry = await route.stat(path)
    node = fs.table.lookup(parent, name, entry)
    try:
        opened = await _open(fs, node, flags, kill=False)
    except BaseException:  # the kernel is told of no node, and forgets none; an interrupted call too
        fs.table.forget(node.nodeid, 1)
        raise
    assert isinstance(opened, bytes)
    return fs.entry_reply(node, entry) + opened


def tmpfile(fs: FileSystem, request: Request) -> Answer:
    """TMPFILE: a file without a name (O_TMPFILE); linkat(2) may give it one."""
    flags, mode, _, _ = CREATE_IN.unpack_from(request.body)
    return _tmpfile(fs, fs.table[request.nodeid], flags, mode, request.uid, request.gid)


async def _tmpfile(fs: FileSystem, parent: Node, flags: int, mode: int, uid: int, gid: int) -> Reply:
    route, path = fs.child_path(parent, "")
    changes = await new_attributes(fs, parent, uid, gid, mode, Kind.FILE)
    route.must_be_writable(path)
    staged = route.new_file()
    node = fs.table.new(Kind.FILE, route, 0)
    node.ino = (1 << 62) | node.nodeid
    entry = Entry(
        Kind.FILE, mode=changes.mode or 0, uid=uid, gid=changes.gid or 0, atime_ns=changes.atime_ns or 0,
        mtime_ns=changes.mtime_ns or 0, ctime_ns=changes.ctime_ns or 0, ino=node.ino, staging=str(staged.path),
    )  # fmt: skip
    return _created(fs, node, staged, entry, flags)


# -- writing and committing ------------------------------------------------------------------------------------------


def write(fs: FileSystem, request: Request) -> Answer:
    """WRITE, where the kernel does not write the staging file itself; into the page cache, by the reader thread."""
    number, offset, size, write_flags, *_ = WRITE_IN.unpack_from(request.body)
    node = fs.handles.files[number].node
    state = node.opened
    if state is None or state.staged is None:
        raise Stale("it is not open for writing")
    write_all(state.staged.fileno(), request.body[WRITE_IN.size : WRITE_IN.size + size], offset)
    reply = WRITE_OUT.pack(size, 0)
    if write_flags & WRITE_KILL_SUIDGID and node.entry is not None and node.entry.mode & 0o6000:
        return _then(fs.open_files.kill_privileges(node), reply)
    return reply


async def _then(first: Coroutine[Any, Any, None], reply: bytes) -> Reply:
    await first
    return reply


def flush(fs: FileSystem, request: Request) -> Answer:
    """FLUSH: close(2) waits for this; the close-to-open point."""
    handle = fs.handles.files[FLUSH_IN.unpack_from(request.body)[0]]
    return _flush(handle.node) if handle.commits else b""


async def _flush(node: Node) -> Reply:
    state, path = node.opened, node.path()
    if state is not None and state.staged is not None and path is not None and node.route is not None:
        node.entry = await node.route.commit(path, state.staged)
    return b""


def fsync(fs: FileSystem, request: Request) -> Answer:
    """FSYNC: bytes and intent survive a power failure."""
    return _fsync(fs, fs.handles.files[FSYNC_IN.unpack_from(request.body)[0]].node)


async def _fsync(fs: FileSystem, node: Node) -> Reply:
    state, path = node.opened, node.path()
    if state is None or node.route is None:
        return b""
    if state.staged is None:
        if path is not None:
            await node.route.sync_closed(path)
    elif path is None:
        await fs.on_disk(partial(os.fsync, state.staged.fileno()))
    else:
        await node.route.fsync(path, state.staged)
    return b""


def release(fs: FileSystem, request: Request) -> Answer:
    """RELEASE: the last one of an inode lets go of its local file."""
    handle = fs.handles.files.pop(RELEASE_IN.unpack_from(request.body)[0])
    node = handle.node
    if isinstance(node.synthetic, Probe) and node.opened is not None:
        node.opened.handles -= 1
        if not node.opened.handles:
            fs.passthrough.release(node.opened.backing_id or 0)
            node.opened = None
    if node.synthetic is not None:
        return b""
    if not handle.writable and fs.open_files.release_now(node):
        return b""
    return _release(fs, node, handle.writable)


async def _release(fs: FileSystem, node: Node, writable: bool) -> Reply:
    try:
        await fs.open_files.release(node, writable=writable)
    except NotFound as error:
        log.warning("what was written after the last close could not be committed: %s", error)
    except OSError:
        log.exception("what was written after the last close could not be committed; its bytes stay in staging")
    return b""
