"""Reading directories: a snapshot of the listing, in replies as large as the kernel asks for."""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING, Any, Final

from fsdriver.entry import TYPE_BITS, Entry, Kind
from fsdriver.errors import NotFound, Stale
from fsdriver.fuse_mount.filesystem import LONGEST_TTL
from fsdriver.fuse_mount.handles import DirectoryHandle
from fsdriver.fuse_mount.protocol import (
    ATTR,
    DIRENT,
    DIRENT_PLUS,
    ENTRY_HEAD,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    OpenFlag,
    pack_dirent,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.inodes import Node
    from fsdriver.fuse_mount.session import Reply, Request
    from fsdriver.routes.route import Route

    Answer = Reply | Coroutine[Any, Any, Reply]

_UNKNOWN_INO: Final = 0xFFFFFFFF
"""As libfuse: readdir(3) must not see 0, and the true number is not known without asking."""
_NO_ENTRY: Final = bytes(ENTRY_HEAD.size + ATTR.size)
"""nodeid 0: the kernel looks the name up when somebody wants to know more."""
_DT_DIR: Final = stat.S_IFDIR >> 12
_PADDING: Final = tuple(bytes(count) for count in range(8))
PLUS_MOST: Final = 100_000
"""Entries of one directory that come with attributes: each costs the kernel and this process an inode."""


def opendir(fs: FileSystem, request: Request) -> Answer:
    """OPENDIR: the kernel keeps the names it reads, and may use those of an earlier time while the listing is the same.

    One handle at a time fills what the kernel keeps, so that it never joins two snapshots.
    """
    node = fs.table[request.nodeid]
    flags, path = OpenFlag(0), node.path() if node.route is not None else None
    current, left = _current(node, path)
    with fs.table.lock:
        if path is not None and not node.readers and node.route is not None and node.route.policy.ttl:
            flags = OpenFlag.CACHE_DIR
            if current is not None and node.listed is current:
                flags |= OpenFlag.KEEP_CACHE
            else:
                node.listed = None
        node.readers += 1
    handle = DirectoryHandle(node, kept=bool(flags))
    if OpenFlag.KEEP_CACHE in flags:
        _keep(fs, handle, left)
    return OPEN_OUT.pack(fs.handles.add_directory(handle), flags, 0)


def _current(node: Node, path: str | None) -> tuple[object, float]:
    return (None, 0.0) if node.route is None or path is None else node.route.memory.generation(path)


def _keep(fs: FileSystem, handle: DirectoryHandle, left: float) -> None:
    """The kernel may keep the names it reads through a handle so many seconds, also while that stays open."""
    handle.until = time.monotonic() + left
    if left < LONGEST_TTL:
        fs.rereading.watch(left)


def releasedir(fs: FileSystem, request: Request) -> Answer:
    """RELEASEDIR."""
    handle = fs.handles.directories.pop(RELEASE_IN.unpack_from(request.body)[0])
    with fs.table.lock:
        handle.node.readers -= 1
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
    node, again = handle.node, handle.entries is not None
    generation, entries = await _snapshot(fs, node)
    handle.entries = entries
    if handle.kept and node.listed is not generation:
        # What the kernel has from an earlier reading of the same handle would be joined with this one.
        node.listed = None if again else generation
        handle.kept = not again
    if handle.kept:
        _keep(fs, handle, _current(node, node.path())[1])
    return _pack(fs, handle, offset, size, plus=plus)


async def _snapshot(fs: FileSystem, node: Node) -> tuple[object, list[tuple[str, Entry | None]]]:
    """Names with their entries, and the generation of the listing if it is remembered.

    None as an entry: a directory that must be looked up (a route, or a part of the skeleton).
    """
    if node.synthetic is not None:
        files = fs.synthetic.files.items()
        return None, [(name, fs.synthetic.file_entry(file, fs.uid, fs.gid)) for name, file in files]
    branches = node.branch.children if node.branch is not None else {}
    names: list[tuple[str, Entry | None]] = [(name, None) for name in branches]
    if node.route is None:
        return None, names
    path = node.path()
    if path is None:
        raise Stale("the directory was removed")
    generation, listed = await _listed(node.route, path, may_lack=bool(branches))
    names += listed.items() if not branches else [(name, one) for name, one in listed.items() if name not in branches]
    return generation, names


async def _listed(route: Route, path: str, *, may_lack: bool) -> tuple[object, Mapping[str, Entry]]:
    known = route.memory.state(path)
    if known is not None:
        return known
    try:
        listed = await route.list(path)
    except NotFound:
        if not may_lack:
            raise
        return None, {}
    return route.memory.state(path) or (None, listed)


def _pack(fs: FileSystem, handle: DirectoryHandle, offset: int, size: int, *, plus: bool) -> Reply:
    """Entries from a cookie on: 0 and 1 are ``.`` and ``..``, then those of the snapshot."""
    node, entries = handle.node, handle.entries or []
    result, position = bytearray(), offset
    while position < 2:
        ino = node.ino if position == 0 else _parent_ino(node)
        dirent = pack_dirent(ino or _UNKNOWN_INO, position + 1, b"." * (position + 1), _DT_DIR)
        result += _NO_ENTRY + dirent if plus else dirent
        position += 1
    raws: list[bytes] = []
    free, least = size - len(result), (len(_NO_ENTRY) if plus else 0) + DIRENT.size
    for at in range(position - 2, len(entries)):
        raw = entries[at][0].encode("utf-8", "surrogateescape")
        free -= least + (len(raw) + 7 & ~7)
        if free < 0:
            break
        raws.append(raw)
    chosen = entries[position - 2 : position - 2 + len(raws)]
    if plus and position < PLUS_MOST:
        _pack_plus(fs, node, chosen, raws, position, result)
        return result
    for at, (_, entry) in enumerate(chosen):
        ino, kind = (entry.ino, TYPE_BITS[entry.kind] >> 12) if entry is not None else (0, _DT_DIR)
        dirent = pack_dirent(ino or _UNKNOWN_INO, position + at + 1, raws[at], kind)
        result += _NO_ENTRY + dirent if plus else dirent
    return result


def _parent_ino(node: Node) -> int:
    return node.names[0][0].ino if node.names else node.ino


def _pack_plus(
    fs: FileSystem,
    parent: Node,
    chosen: Sequence[tuple[str, Entry | None]],
    raws: Sequence[bytes],
    position: int,
    result: bytearray,
) -> None:
    """Append entries with attributes; one whose attributes must be asked for comes without, and is looked up when needed."""
    path, route = parent.path(), parent.route
    left = 0.0
    found: list[Entry | None] = [None] * len(chosen)
    if path is not None and route is not None:
        found, left = route.cached_names(path, [name for name, _ in chosen])
    now: list[tuple[str, Entry | None]] = []
    for (name, listed), known in zip(chosen, found, strict=True):
        # Names that changed since the snapshot: what is remembered now decides.
        same = listed is not None and known is not None and known.kind is listed.kind
        now.append((name, known if same else None))
    seconds, nanoseconds = fs.lifetime(left)
    pack, plain = DIRENT_PLUS.pack, fs.plain_attributes
    nodes = fs.table.lookup_many(parent, now)
    for (_, listed), (_, entry), node, raw in zip(chosen, now, nodes, raws, strict=True):
        position += 1
        kind = TYPE_BITS[listed.kind] >> 12 if listed is not None else _DT_DIR
        ino = (listed.ino if listed is not None else 0) or _UNKNOWN_INO
        if node is None or entry is None:
            result += _NO_ENTRY + pack_dirent(ino, position, raw, kind)
            continue
        ino = entry.ino
        if node.opened is None and not entry.links and entry.kind is not Kind.DIRECTORY:
            result += pack(
                node.nodeid, 0, seconds, seconds, nanoseconds, nanoseconds, *plain(entry), ino, position, len(raw), kind
            )  # fmt: skip
            result += raw + _PADDING[-len(raw) & 7]
        else:
            result += fs.entry_reply(node, entry, left) + pack_dirent(ino, position, raw, kind)
