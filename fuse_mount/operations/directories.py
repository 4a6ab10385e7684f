"""Reading directories: a snapshot of the listing, in replies as large as the kernel asks for."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from fsdriver.entry import TYPE_BITS, Entry
from fsdriver.errors import NotFound, Stale
from fsdriver.fuse_mount.handles import DirectoryHandle
from fsdriver.fuse_mount.protocol import ATTR, ENTRY_HEAD, OPEN_OUT, READ_IN, RELEASE_IN, pack_dirent

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.inodes import Node
    from fsdriver.fuse_mount.session import Reply, Request

    Answer = Reply | Coroutine[Any, Any, Reply]

_UNKNOWN_INO: Final = 0xFFFFFFFF
"""As libfuse: readdir(3) must not see 0, and the true number is not known without asking."""
_NO_ENTRY: Final = bytes(ENTRY_HEAD.size + ATTR.size)
"""nodeid 0: the kernel looks the name up when somebody wants to know more."""
_DT_DIR: Final = stat.S_IFDIR >> 12


def opendir(fs: FileSystem, request: Request) -> Answer:
    """OPENDIR."""
    handle = DirectoryHandle(fs.table[request.nodeid])
    return OPEN_OUT.pack(fs.handles.add_directory(handle), 0, 0)


def releasedir(fs: FileSystem, request: Request) -> Answer:
    """RELEASEDIR."""
    fs.handles.directories.pop(RELEASE_IN.unpack_from(request.body)[0])
    return b""


def fsyncdir(fs: FileSystem, request: Request) -> Answer:
    """FSYNCDIR: changes of names survive a power failure."""
    return _fsyncdir(fs, fs.table[request.nodeid])


async def _fsyncdir(fs: FileSystem, node: Node) -> Reply:
    route, path = node.route, node.path()
    if route is not None and path is not None:
        await fs.on_disk(route.journal.make_durable)
        if route.policy.fsync == "remote":
            await route.sync(path)
    return b""


def syncfs(_: FileSystem, __: Request) -> Answer:
    """SYNCFS: everything acknowledged is journaled already."""
    return b""


def readdir(fs: FileSystem, request: Request) -> Answer:
    """READDIR: names and types."""
    return _read(fs, request, plus=False)


def readdirplus(fs: FileSystem, request: Request) -> Answer:
    """READDIRPLUS: with attributes, as far as the listing told them; each entry counts as looked up."""
    return _read(fs, request, plus=True)


def _read(fs: FileSystem, request: Request, *, plus: bool) -> Answer:
    number, offset, size, *_ = READ_IN.unpack_from(request.body)
    handle = fs.handles.directories[number]
    if offset and handle.entries is not None:
        return _pack(fs, handle, offset, size, plus=plus)
    return _begin(fs, handle, offset, size, plus=plus)


async def _begin(fs: FileSystem, handle: DirectoryHandle, offset: int, size: int, *, plus: bool) -> Reply:
    handle.entries = await _snapshot(fs, handle.node)
    return _pack(fs, handle, offset, size, plus=plus)


async def _snapshot(fs: FileSystem, node: Node) -> list[tuple[str, Entry | None]]:
    """Names with their entries; None: a directory that must be looked up (a route, or a part of the skeleton)."""
    if node.synthetic is not None:
        files = fs.synthetic.files.items()
        return [(name, fs.synthetic.file_entry(file, fs.uid, fs.gid)) for name, file in files]
    branches = node.branch.children if node.branch is not None else {}
    names: list[tuple[str, Entry | None]] = [(name, None) for name in branches]
    if node.route is not None:
        path = node.path()
        if path is None:
            raise Stale("the directory was removed")
        try:
            listed = await node.route.list(path)
        except NotFound:
            if not branches:
                raise
            listed = {}
        names += [(name, entry) for name, entry in listed.items() if name not in branches]
    return names


def _pack(fs: FileSystem, handle: DirectoryHandle, offset: int, size: int, *, plus: bool) -> Reply:
    """Entries from a cookie on: 0 and 1 are ``.`` and ``..``, then those of the snapshot."""
    node, entries = handle.node, handle.entries or []
    result = bytearray()
    position = offset
    for position in range(offset, len(entries) + 2):
        if position < 2:
            name, entry, raw = "", None, b"." * (position + 1)
            ino = node.ino if position == 0 else _parent_ino(node)
        else:
            name, entry = entries[position - 2]
            raw = os.fsencode(name)
            ino = entry.ino if entry is not None else _UNKNOWN_INO
        kind = TYPE_BITS[entry.kind] >> 12 if entry is not None else _DT_DIR
        dirent = pack_dirent(ino or _UNKNOWN_INO, position + 1, raw, kind)
        if len(result) + len(dirent) + (len(_NO_ENTRY) if plus else 0) > size:
            break
        if plus:
            result += _entry(fs, node, name, entry)
        result += dirent
    return result


def _parent_ino(node: Node) -> int:
    return node.names[0][0].ino if node.names else node.ino


def _entry(fs: FileSystem, parent: Node, name: str, entry: Entry | None) -> bytes:
    if entry is None or parent.route is None:
        return _NO_ENTRY
    path = parent.child_path(name)
    if path is None:
        return _NO_ENTRY
    # Files that changed since the snapshot, directories and unverified entries: what is remembered now decides.
    known = parent.route.cached(path)
    if known is None or known.kind is not entry.kind:
        return _NO_ENTRY
    return fs.entry_reply(fs.table.lookup(parent, name, known), known)
