"""Extended attributes: those a file was given, and those it computes about itself (``user.fsdriver.*``)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import AccessDenied, ReadOnly, Unsupported
from fsdriver.fuse_mount.protocol import GETXATTR_IN, SETXATTR_IN, XATTR_OUT, name_of
from fsdriver.routes.caching import is_pinned, pin, unpin
from fsdriver.routes.tiering import heat_of, move, record_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.inodes import Node
    from fsdriver.fuse_mount.session import Reply, Request
    from fsdriver.routes.route import Route
    from fsdriver.tiers.records import Record

    Answer = Reply | Coroutine[Any, Any, Reply]

XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2
VIRTUAL: Final = "user.fsdriver."
FLUSH: Final = "user.fsdriver.flush"
PIN: Final = "user.fsdriver.pin"
TIER: Final = "user.fsdriver.tier"
ACL: Final = "system.posix_acl_"


def _state(route: Route, path: str, entry: Entry) -> str:
    if path in route.uncommitted:
        return "open"
    if entry.staging is not None:
        return "pending"
    if entry.kind is not Kind.FILE or entry.version is None:
        return "stored"
    return "cached" if route.services.cache.contains(route.content_key(path, entry)) else "remote"


_COMPUTED: Final[Mapping[str, Callable[[Route, str, Entry], str]]] = {
    "backend": lambda route, _path, _entry: route.backend.identity,
    "etag": lambda _route, _path, entry: entry.version or "",
    "pin": lambda route, path, entry: "1" if is_pinned(route, path, entry) else "0",
    "key": lambda route, path, entry: entry.key or route.key(path),
    "state": _state,
    "version": lambda _route, _path, entry: entry.version or "",
}
"""Not listed by listxattr(2): tools that copy attributes would copy them."""


_RECORDED: Final[Mapping[str, Callable[[Record], str | None]]] = {
    "tier": lambda record: ",".join(record.holders()),
    "heat": lambda record: f"{heat_of(record):.6g}",
    "sha256": lambda record: record.sha256.hex() if record.sha256 is not None else None,
}
"""Likewise, of what the catalog of a stack of tiers knows."""


def _missing(name: str) -> OSError:
    return OSError(errno.ENODATA, "no such attribute", name)


def _check(name: str) -> None:
    if name.startswith(ACL):
        raise Unsupported("access control lists are not kept; use modes", name)


def _sized(value: bytes, size: int) -> bytes:
    """A value in the form asked for: with size 0 only its length."""
    if not size:
        return XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def getxattr(fs: FileSystem, request: Request) -> Answer:
    """GETXATTR."""
    size, _ = GETXATTR_IN.unpack_from(request.body)
    name = name_of(request.body, GETXATTR_IN.size)
    _check(name)
    node = fs.table[request.nodeid]
    if name.startswith(VIRTUAL):
        return _computed(fs, node, name, size)
    entry = fs.known_entry(node)
    if entry is None:
        return _get(fs, node, name, size)
    if name not in entry.xattrs:
        raise _missing(name)
    return _sized(entry.xattrs[name], size)


async def _get(fs: FileSystem, node: Node, name: str, size: int) -> Reply:
    entry = await fs.entry(node)
    if name not in entry.xattrs:
        raise _missing(name)
    return _sized(entry.xattrs[name], size)


async def _computed(fs: FileSystem, node: Node, name: str, size: int) -> Reply:
    own, route, path = name.removeprefix(VIRTUAL), node.route, node.path()
    value = None if route is None or path is None else await _value(fs, node, route, path, own)
    if value is None:
        raise _missing(name)
    return _sized(os.fsencode(value), size)


async def _value(fs: FileSystem, node: Node, route: Route, path: str, name: str) -> str | None:
    entry = await fs.entry(node)
    if name in _RECORDED and entry.kind is Kind.FILE and entry.staging is None:
        record = await record_of(route, path)
        if record is not None:
            return _RECORDED[name](record)
    if name == "tier":
        return route.backend.scheme
    return _COMPUTED[name](route, path, entry) if name in _COMPUTED else None


def listxattr(fs: FileSystem, request: Request) -> Answer:
    """LISTXATTR."""
    size, _ = GETXATTR_IN.unpack_from(request.body)
    return _list(fs, fs.table[request.nodeid], size)


async def _list(fs: FileSystem, node: Node, size: int) -> Reply:
    entry = await fs.entry(node)
    return _sized(b"".join(os.fsencode(name) + b"\0" for name in entry.xattrs), size)


def setxattr(fs: FileSystem, request: Request) -> Answer:
    """SETXATTR."""
    size, flags = SETXATTR_IN.unpack_from(request.body)
    raw_name, _, rest = bytes(request.body[SETXATTR_IN.size :]).partition(b"\0")
    name, value = raw_name.decode("utf-8", "surrogateescape"), rest[:size]
    _check(name)
    node = fs.table[request.nodeid]
    if name == FLUSH:
        return _sync(node)
    if name == PIN:
        return _set_pin(node, value)
    if name == TIER:
        return _move(node, os.fsdecode(value))
    if name.startswith(VIRTUAL):
        raise AccessDenied("this attribute is computed and cannot be set", name)
    return _change(fs, node, name, value, flags)


async def _sync(node: Node) -> Reply:
    if node.route is not None and (path := node.path()) is not None:
        await node.route.sync(path)
    return b""


async def _move(node: Node, tier: str) -> Reply:
    if node.route is not None and (path := node.path()) is not None:
        await move(node.route, path, tier)
    return b""


async def _set_pin(node: Node, value: bytes) -> Reply:
    if value not in {b"0", b"1"}:
        raise OSError(errno.EINVAL, "1 pins the file in the cache, 0 undoes that", PIN)
    if node.route is not None and (path := node.path()) is not None:
        await (pin if value == b"1" else unpin)(node.route, [path])
    return b""


def removexattr(fs: FileSystem, request: Request) -> Answer:
    """REMOVEXATTR."""
    name = name_of(request.body)
    _check(name)
    if name == PIN:
        return _set_pin(fs.table[request.nodeid], b"0")
    return _change(fs, fs.table[request.nodeid], name, None, XATTR_REPLACE)


async def _change(fs: FileSystem, node: Node, name: str, value: bytes | None, flags: int) -> Reply:
    if node.route is None:
        raise ReadOnly("this is part of the mount and cannot be changed", name)
    async with node.gate:
        entry = await fs.entry(node)
        if flags == XATTR_CREATE and name in entry.xattrs:
            raise FileExistsError(errno.EEXIST, "the attribute exists", name)
        if flags == XATTR_REPLACE and name not in entry.xattrs:
            raise _missing(name)
        changed = {known: content for known, content in entry.xattrs.items() if known != name}
        if value is not None:
            changed[name] = value
        await fs.open_files.set_attributes(node, Changes(xattrs=changed))
    return b""
