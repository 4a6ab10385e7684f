"""Names: looking up, making, removing, renaming and linking them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Any

from fsdriver.entry import KIND_OF_TYPE, Changes, Entry, Kind
from fsdriver.errors import (
    AlreadyExists,
    CrossRoute,
    FsdriverError,
    InvalidName,
    NameTooLong,
    NotFound,
    ReadOnly,
    Stale,
    Unsupported,
)
from fsdriver.fuse_mount.inodes import content_of
from fsdriver.fuse_mount.protocol import (
    FORGET_IN,
    LINK_IN,
    MKDIR_IN,
    MKNOD_IN,
    NAME_MAX,
    RENAME2_IN,
    RENAME_EXCHANGE,
    RENAME_IN,
    RENAME_NOREPLACE,
    name_of,
    names_of,
    unpack_forgets,
)
from fsdriver.fuse_mount.transport import Expired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterator

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.inodes import Node
    from fsdriver.fuse_mount.session import Reply, Request

    Answer = Reply | Coroutine[Any, Any, Reply]


def check_name(name: str) -> None:
    """Refuse a name no file system here would hold. Raises NameTooLong."""
    if len(name) > NAME_MAX // 4 and len(os.fsencode(name)) > NAME_MAX:
        raise NameTooLong(f"a name may have {NAME_MAX} bytes", name)


def lookup(fs: FileSystem, request: Request) -> Answer:
    """LOOKUP: warm names are answered at once."""
    parent, name = fs.table[request.nodeid], name_of(request.body)
    check_name(name)
    if name in {".", ".."}:
        raise Unsupported("looking up . and .. is for exported file systems", name)
    found = fs.special(parent, name)
    if found is not None:
        node, entry = found
        return fs.entry_reply(node, entry) if entry is not None else _finish_special(fs, node)
    route, path = fs.child_path(parent, name)
    found_for = route.cached_for(path)
    if found_for is not None:
        known, left = found_for
        return fs.entry_reply(fs.table.lookup(parent, name, known), known, left)
    return _lookup_cold(fs, parent, name)


async def _finish_special(fs: FileSystem, node: Node) -> Reply:
    try:
        return fs.entry_reply(node, await fs.entry(node))
    except BaseException:  # the kernel is told of no node, and forgets none; an interrupted call too
        fs.table.forget(node.nodeid, 1)
        raise


async def _lookup_cold(fs: FileSystem, parent: Node, name: str) -> Reply:
    route, path = fs.child_path(parent, name)
    try:
        entry = await route.stat(path)
    except NotFound:
        return fs.negative_reply(route)
    found = route.cached_for(path)
    left = found[1] if found is not None and found[0] is entry else None
    return fs.entry_reply(fs.table.lookup(parent, name, entry), entry, left)


def forget(fs: FileSystem, request: Request) -> None:
    """FORGET: has no reply."""
    fs.table.forget(request.nodeid, FORGET_IN.unpack_from(request.body)[0])


def batch_forget(fs: FileSystem, request: Request) -> None:
    """BATCH_FORGET: has no reply."""
    for nodeid, count in unpack_forgets(request.body):
        fs.table.forget(nodeid, count)


@contextlib.contextmanager
def _expiring_what_stands(fs: FileSystem, *names: tuple[Node, str]) -> Iterator[None]:
    """A change that stands although it fails: the kernel, which is told that it failed, must look at its names again."""
    try:
        yield
    except FsdriverError as error:
        if error.applied:
            fs.expire([Expired(parent, ((parent, name),)) for parent, name in names])
        raise


async def _make_stand(change: Awaitable[object]) -> FsdriverError | None:
    """Carry out a change; the error of one that stands although it failed."""
    try:
        await change
    except FsdriverError as error:
        if not error.applied:
            raise
        return error
    return None


async def new_attributes(
    fs: FileSystem, parent: Node, request_uid: int, request_gid: int, mode: int, kind: Kind
) -> Changes:
    """Owner, mode and times of something new; a set-group-ID directory passes its group on (mkdir(2))."""
    above = await fs.entry(parent)
    gid, bits = request_gid, mode & 0o7777
    if above.mode & stat.S_ISGID:
        gid = above.gid
        if kind is Kind.DIRECTORY:
            bits |= stat.S_ISGID
    now = time.time_ns()
    return Changes(mode=bits, uid=request_uid, gid=gid, atime_ns=now, mtime_ns=now, ctime_ns=now)


def _made(fs: FileSystem, parent: Node, name: str, entry: Entry) -> bytes:
    """The reply for something new: what an earlier node of that name stood for is over."""
    fs.table.unlink(parent, name)
    return fs.entry_reply(fs.table.lookup(parent, name, entry), entry)


def mkdir(fs: FileSystem, request: Request) -> Answer:
    """MKDIR."""
    mode, _ = MKDIR_IN.unpack_from(request.body)
    name = name_of(request.body, MKDIR_IN.size)
    check_name(name)
    return _mkdir(fs, fs.table[request.nodeid], name, mode, request.uid, request.gid)


async def _mkdir(fs: FileSystem, parent: Node, name: str, mode: int, uid: int, gid: int) -> Reply:
    route, path = fs.child_path(parent, name)
    changes = await new_attributes(fs, parent, uid, gid, mode, Kind.DIRECTORY)
    with _expiring_what_stands(fs, (parent, name)):
        return _made(fs, parent, name, await route.mkdir(path, changes))


def symlink(fs: FileSystem, request: Request) -> Answer:
    """SYMLINK: the name comes first, then the target."""
    name, target = names_of(request.body)
    check_name(name)
    return _make(fs, fs.table[request.nodeid], name, Kind.SYMLINK, 0o777, request.uid, request.gid, target=target)


def mknod(fs: FileSystem, request: Request) -> Answer:
    """MKNOD: FIFOs, sockets, devices, and regular files without opening them."""
    mode, rdev, _, _ = MKNOD_IN.unpack_from(request.body)
    name = name_of(request.body, MKNOD_IN.size)
    check_name(name)
    kind = KIND_OF_TYPE.get(stat.S_IFMT(mode) or stat.S_IFREG)
    if kind is None:
        raise InvalidName(f"no such type of file: {stat.S_IFMT(mode):o}", name)
    parent = fs.table[request.nodeid]
    if kind is Kind.FILE:
        return _make_file(fs, parent, name, mode, request.uid, request.gid)
    return _make(fs, parent, name, kind, mode, request.uid, request.gid, rdev=rdev)


async def _make(
    fs: FileSystem, parent: Node, name: str, kind: Kind, mode: int, uid: int, gid: int, *, target: str = "", rdev: int = 0
) -> Reply:  # fmt: skip
    route, path = fs.child_path(parent, name)
    changes = await new_attributes(fs, parent, uid, gid, mode, kind)
    with _expiring_what_stands(fs, (parent, name)):
        return _made(fs, parent, name, await route.make(path, kind, changes, target=target, rdev=rdev))


async def _make_file(fs: FileSystem, parent: Node, name: str, mode: int, uid: int, gid: int) -> Reply:
    route, path = fs.child_path(parent, name)
    changes = await new_attributes(fs, parent, uid, gid, mode, Kind.FILE)
    staged = route.new_file()
    try:
        await route.create(path, staged, changes, exclusive=True)
        entry = await route.commit(path, staged)
    finally:
        await route.release(path if route.cached(path) is not None else None, staged)
    return _made(fs, parent, name, route.cached(path) or entry)


async def readlink_target(fs: FileSystem, node: Node) -> Reply:
    """The target of a symlink."""
    entry = await fs.entry(node)
    if entry.kind is not Kind.SYMLINK:
        raise InvalidName("is no symbolic link", node.path())
    return os.fsencode(entry.target)


def readlink(fs: FileSystem, request: Request) -> Answer:
    """READLINK."""
    return readlink_target(fs, fs.table[request.nodeid])


def unlink(fs: FileSystem, request: Request) -> Answer:
    """UNLINK: an open file stays readable and writable until its last close."""
    return _remove(fs, fs.table[request.nodeid], name_of(request.body), directory=False)


def rmdir(fs: FileSystem, request: Request) -> Answer:
    """RMDIR."""
    return _remove(fs, fs.table[request.nodeid], name_of(request.body), directory=True)


async def _remove(fs: FileSystem, parent: Node, name: str, *, directory: bool) -> Reply:
    if (parent.branch is not None and name in parent.branch.children) or (
        parent is fs.table.root and name == ".fsdriver"
    ):
        raise ReadOnly("a route hangs here, or it is part of the mount", name)
    route, path = fs.child_path(parent, name)
    node = (parent.children or {}).get(name)
    entry = route.cached(path) or await route.stat(path)
    if node is not None:
        fs.open_files.prepare_removal(node)
    with _expiring_what_stands(fs, (parent, name)):
        failure = await _make_stand(route.rmdir(path) if directory else route.remove(path))
        keep_attributes(fs, parent, name, entry)
        if failure is not None:
            raise failure
    return b""


def keep_attributes(fs: FileSystem, parent: Node, name: str, entry: Entry) -> None:
    """A name goes; what is still open, or referred to by O_PATH, keeps the attributes it had."""
    others = tuple(link for link in entry.links if link != parent.child_path(name))
    node = fs.table.unlink(parent, name, others)
    if node is not None and node.detached:
        node.entry = node.entry if node.opened is not None and node.entry is not None else entry


def rename(fs: FileSystem, request: Request) -> Answer:
    """RENAME."""
    (new_parent,) = RENAME_IN.unpack_from(request.body)
    old, new = names_of(request.body, RENAME_IN.size)
    return _rename(fs, fs.table[request.nodeid], old, fs.table[new_parent], new, 0)


def rename2(fs: FileSystem, request: Request) -> Answer:
    """RENAME2: with RENAME_NOREPLACE or RENAME_EXCHANGE."""
    new_parent, flags, _ = RENAME2_IN.unpack_from(request.body)
    old, new = names_of(request.body, RENAME2_IN.size)
    return _rename(fs, fs.table[request.nodeid], old, fs.table[new_parent], new, flags)


async def _rename(fs: FileSystem, source: Node, old: str, target: Node, new: str, flags: int) -> Reply:
    check_name(new)
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
        raise OSError(errno.EINVAL, "unknown flags of renameat2")
    route, old_path = fs.child_path(source, old)
    new_route, new_path = fs.child_path(target, new)
    if route is not new_route:
        raise CrossRoute("a rename cannot cross routes; copy instead", old_path)
    for parent, name in ((source, old), (target, new)):
        if parent.branch is not None and name in parent.branch.children:
            raise CrossRoute("a route hangs here", name)
    exchange = bool(flags & RENAME_EXCHANGE)
    there = (target.children or {}).get(new)
    moving = (source.children or {}).get(old)
    if there is not None and not exchange and there is moving:
        return b""  # two links to one file: rename(2) does nothing
    replaced_entry = None if exchange or there is None else route.cached(new_path)
    for node in filter(None, (there, moving)):
        fs.open_files.prepare_removal(node)
    with _expiring_what_stands(fs, (source, old), (target, new)):
        failure = await _make_stand(
            route.rename(old_path, new_path, replace=not flags & RENAME_NOREPLACE, exchange=exchange)
        )
        replaced = fs.table.rename(source, old, target, new, exchange=exchange)
        if replaced is not None and replaced.detached and replaced.entry is None:
            replaced.entry = replaced_entry
        for path in (new_path, old_path if exchange else None):
            _follow(fs, route, path)
        if failure is not None:
            raise failure
    return b""


def _follow(fs: FileSystem, route: Any, path: str | None) -> None:
    """After a move the same bytes may go by another version or staging file; the node keeps its number."""
    node = None if path is None else fs.table.find(route, path)
    entry = None if path is None else route.cached(path)
    if node is not None and entry is not None and node.kind is Kind.FILE and node.opened is None:
        fs.open_files.unpark(node)
    if node is not None and entry is not None and node.kind is Kind.FILE:
        node.content = content_of(node.route, entry)


def link(fs: FileSystem, request: Request) -> Answer:
    """LINK: one more name, or the first one of an O_TMPFILE file."""
    (old,) = LINK_IN.unpack_from(request.body)
    name = name_of(request.body, LINK_IN.size)
    check_name(name)
    return _link(fs, fs.table[old], fs.table[request.nodeid], name)


async def _link(fs: FileSystem, node: Node, parent: Node, name: str) -> Reply:
    route, path = fs.child_path(parent, name)
    if node.route is not route:
        raise CrossRoute("a link cannot cross routes; copy instead", path)
    source = node.path()
    if source is not None:
        entry = await route.link(source, path)
    else:
        entry = await _link_unnamed(node, path)
    fs.table.link(node, parent, name)
    if node.opened is not None:
        node.entry = entry
    elif node.kind is Kind.FILE:
        node.content = content_of(node.route, entry)
    return fs.entry_reply(node, entry)


async def _link_unnamed(node: Node, path: str) -> Entry:
    state, entry = node.opened, node.entry
    if state is None or state.staged is None or entry is None or node.route is None:
        raise Stale("it was removed; only a file that is open for writing can get a name again", path)
    changes = Changes(
        entry.mode, entry.uid, entry.gid, entry.atime_ns, entry.mtime_ns, entry.ctime_ns, entry.xattrs or None
    )
    async with node.gate:
        if await _exists(node, path):
            raise AlreadyExists("the name is taken", path)
        made = await node.route.create(path, state.staged, changes, exclusive=True)
        node.ino = made.ino
        return await node.route.commit(path, state.staged)


async def _exists(node: Node, path: str) -> bool:
    try:
        await node.route.stat(path) if node.route is not None else None
    except NotFound:
        return False
    return True
