"""What libfuse calls: its path-based operations, each translated into requests of the kernel's protocol.

Method names and arguments are those that mfusepy and fusepy give them. Times are in nanoseconds since the epoch.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from fsdriver.cache import write_all
from fsdriver.errors import Stale
from fsdriver.fuse_mount.operations import bind
from fsdriver.fuse_mount.protocol import (
    ATTR,
    ATTR_HEAD,
    COPY_FILE_RANGE_IN,
    CREATE_IN,
    DIRENT,
    ENTRY_HEAD,
    FALLOCATE_IN,
    FLUSH_IN,
    FSYNC_IN,
    GETXATTR_IN,
    LINK_IN,
    LSEEK_IN,
    LSEEK_OUT,
    MKDIR_IN,
    MKNOD_IN,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    RENAME2_IN,
    RENAME_EXCHANGE,
    SECOND,
    SETATTR_IN,
    SETXATTR_IN,
    STATFS_OUT,
    WRITE_OUT,
    Opcode,
    OpenFlag,
    SetattrValid,
)
from fsdriver.runtime import run

from .calls import Body, Calls, Context
from .pages import PageOwners
from .paths import HIDDEN, Paths, packed

if TYPE_CHECKING:
    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.handles import FileHandle

LISTING: Final = 1 << 16
"""Bytes of one READDIR."""
LARGEST_VALUE: Final = 1 << 20
"""Room for an extended attribute or the list of their names, bytes; the kernel takes 64 KiB of either."""
UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2
"""utimensat(2); they come as nanoseconds since the epoch, which no file can mean in earnest."""


class PathOperations:
    """See the module.

    Parameters
    ----------
    fs : FileSystem
    context : callable
        On whose behalf the calling thread works.
    """

    use_ns = True
    flag_utime_omit_ok = True
    """Libfuse 2 passes UTIME_OMIT on instead of dropping the call."""

    def __init__(self, fs: FileSystem, context: Context) -> None:
        self._fs = fs
        self.calls = Calls(bind(fs, _no_session), context)
        self._paths = Paths(fs.table, self.calls)
        self._pages = PageOwners()

    # -- attributes --------------------------------------------------------------------------------------------------

    def getattr(self, path: str, fi: Any = None) -> dict[str, int]:
        """Attributes, as the fields of ``struct stat``."""
        if fi is not None:
            return _stat(self.calls(Opcode.GETATTR, self._file(fi).node.nodeid, bytes(16)), ATTR_HEAD.size)
        with self._paths.entry(path) as (nodeid, entry):
            if entry is not None:
                return _stat(entry, ENTRY_HEAD.size)
            return _stat(self.calls(Opcode.GETATTR, nodeid, bytes(16)), ATTR_HEAD.size)

    def chmod(self, path: str, mode: int, fi: Any = None) -> None:
        """Permission bits."""
        self._set(path, SetattrValid.MODE, fi, mode=mode)

    def chown(self, path: str, uid: int, gid: int, fi: Any = None) -> None:
        """Owner and group; -1 leaves one as it is."""
        valid = (SetattrValid.UID if uid != -1 else SetattrValid(0)) | (
            SetattrValid.GID if gid != -1 else SetattrValid(0)
        )
        if valid:
            self._set(path, valid, fi, uid=max(uid, 0), gid=max(gid, 0))

    def truncate(self, path: str, length: int, fi: Any = None) -> None:
        """The size."""
        self._set(path, SetattrValid.SIZE, fi, size=length)

    def utimens(self, path: str, times: tuple[int, int] | None = None, fi: Any = None) -> None:
        """Times of access and modification; None is now."""
        atime, mtime = times or (UTIME_NOW, UTIME_NOW)
        now = SetattrValid.ATIME | SetattrValid.ATIME_NOW, SetattrValid.MTIME | SetattrValid.MTIME_NOW
        plain = SetattrValid.ATIME, SetattrValid.MTIME
        valid = SetattrValid(0)
        for value, with_now, given in zip((atime, mtime), now, plain, strict=True):
            if value != UTIME_OMIT:
                valid |= with_now if value == UTIME_NOW else given
        self._set(path, valid, fi, atime=atime, mtime=mtime)

    def _set(
        self, path: str, valid: SetattrValid, fi: Any = None, *,
        size: int = 0, mode: int = 0, uid: int = 0, gid: int = 0, atime: int = 0, mtime: int = 0,
    ) -> None:  # fmt: skip
        handle = 0
        if fi is not None:
            valid |= SetattrValid.FH
            handle = fi.fh
        (atime_s, atime_ns), (mtime_s, mtime_ns) = divmod(atime, SECOND), divmod(mtime, SECOND)
        body = SETATTR_IN.pack(
            valid, 0, handle, size, 0, atime_s % (1 << 64), mtime_s % (1 << 64), 0, atime_ns, mtime_ns, 0, mode, 0, uid, gid, 0
        )  # fmt: skip
        if fi is not None:
            self.calls(Opcode.SETATTR, self._file(fi).node.nodeid, body)
            return
        with self._paths.node(path) as nodeid:
            self.calls(Opcode.SETATTR, nodeid, body)

    def statfs(self, path: str) -> dict[str, int]:
        """As the fields of ``struct statvfs``."""
        with self._paths.node(path) as nodeid:
            fields = STATFS_OUT.unpack_from(self.calls(Opcode.STATFS, nodeid))
        blocks, free, available, files, free_files, block_size, longest_name, fragment, _ = fields
        return {
            "f_bsize": block_size, "f_frsize": fragment, "f_blocks": blocks, "f_bfree": free, "f_bavail": available,
            "f_files": files, "f_ffree": free_files, "f_favail": free_files, "f_namemax": longest_name,
        }  # fmt: skip

    # -- names -------------------------------------------------------------------------------------------------------

    def readlink(self, path: str) -> str:
        """The target of a symlink."""
        with self._paths.node(path) as nodeid:
            return _text(self.calls(Opcode.READLINK, nodeid))

    def mknod(self, path: str, mode: int, device: int) -> None:
        """Special files, and regular ones that are not opened."""
        self._make(Opcode.MKNOD, path, MKNOD_IN.pack(mode, device, 0, 0))

    def mkdir(self, path: str, mode: int) -> None:
        """A directory."""
        self._make(Opcode.MKDIR, path, MKDIR_IN.pack(mode, 0))

    def symlink(self, path: str, target: str) -> None:
        """A symlink at ``path``."""
        self._make(Opcode.SYMLINK, path, after=packed(target))

    def link(self, path: str, existing: str) -> None:
        """A further name ``path`` for a file."""
        with self._paths.node(existing) as nodeid:
            self._make(Opcode.LINK, path, LINK_IN.pack(nodeid))

    def _make(self, opcode: Opcode, path: str, before: bytes = b"", after: bytes = b"") -> None:
        with self._paths.parent(path) as (parent, name):
            (nodeid, *_) = ENTRY_HEAD.unpack_from(self.calls(opcode, parent, before + name + after))
        self._paths.forget(nodeid)

    def unlink(self, path: str) -> None:
        """Remove a name of a file."""
        if not self._paths.reveal(path):
            self._remove(Opcode.UNLINK, path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._remove(Opcode.RMDIR, path)
        self._paths.gone(path)

    def _remove(self, opcode: Opcode, path: str) -> None:
        with self._paths.parent(path) as (parent, name):
            self.calls(opcode, parent, name)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        """Move a name; flags are those of renameat2(2)."""
        if HIDDEN.match(new.rpartition("/")[2]) and self._paths.hide(old, new):
            self._pages.moved(old, new)
            return
        with self._paths.parent(old) as (source, name), self._paths.parent(new) as (target, new_name):
            self.calls(Opcode.RENAME2, source, RENAME2_IN.pack(target, flags, 0) + name + new_name)
        exchange = bool(flags & RENAME_EXCHANGE)
        self._paths.moved(old, new, exchange=exchange)
        self._pages.moved(old, new, exchange=exchange)

    # -- extended attributes -----------------------------------------------------------------------------------------

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        """One value."""
        with self._paths.node(path) as nodeid:
            return bytes(self.calls(Opcode.GETXATTR, nodeid, GETXATTR_IN.pack(LARGEST_VALUE, 0) + packed(name)))

    def listxattr(self, path: str) -> list[str]:
        """The names."""
        with self._paths.node(path) as nodeid:
            names = _text(self.calls(Opcode.LISTXATTR, nodeid, GETXATTR_IN.pack(LARGEST_VALUE, 0)))
        return names.split("\0")[:-1]

    def setxattr(self, path: str, name: str, value: bytes, flags: int, _position: int = 0) -> None:
        """Set one; flags are those of setxattr(2)."""
        with self._paths.node(path) as nodeid:
            self.calls(Opcode.SETXATTR, nodeid, SETXATTR_IN.pack(len(value), flags) + packed(name) + value)

    def removexattr(self, path: str, name: str) -> None:
        """Remove one."""
        with self._paths.node(path) as nodeid:
            self.calls(Opcode.REMOVEXATTR, nodeid, packed(name))

    # -- open files --------------------------------------------------------------------------------------------------

    def open(self, path: str, fi: Any) -> None:
        """Open a file; ``fi`` is ``struct fuse_file_info``."""
        with self._paths.node(path) as nodeid:
            reply = self.calls(Opcode.OPEN, nodeid, OPEN_IN.pack(fi.flags & _U32, 0))
            self._opened(path, nodeid, fi, *OPEN_OUT.unpack_from(reply))

    def create(self, path: str, mode: int, fi: Any) -> None:
        """Make a file and open it."""
        with self._paths.parent(path) as (parent, name):
            reply = self.calls(Opcode.CREATE, parent, CREATE_IN.pack(fi.flags & _U32, mode, 0, 0) + name)
        (nodeid, *_) = ENTRY_HEAD.unpack_from(reply)
        self._opened(path, nodeid, fi, *OPEN_OUT.unpack_from(reply, ENTRY_HEAD.size + ATTR.size))
        self._paths.forget(nodeid)

    def _opened(self, path: str, nodeid: int, fi: Any, handle: int, flags: int, _backing: int) -> None:
        fi.fh = handle
        # Pages are dropped at every open: the kernel's inode outlives the bytes that a path stands for.
        fi.keep_cache = 0
        fi.direct_io = int(bool(flags & OpenFlag.DIRECT_IO) or not self._pages.take(path, nodeid, handle))

    def read(self, _path: str | None, size: int, offset: int, fi: Any) -> bytes:
        """Bytes of an open file; the bindings copy from no other type."""
        self.calls.counts[Opcode.READ] += 1
        try:
            handle = self._file(fi)
            data = handle.data[offset : offset + size] if handle.data is not None else _read(handle, offset, size)
            return bytes(data)
        except BaseException as error:  # see `Calls.__call__`
            raise self.calls.failed(error) from error

    def write(self, _path: str | None, data: bytes, offset: int, fi: Any) -> int:
        """Write to an open file; returns how much."""
        self.calls.counts[Opcode.WRITE] += 1
        try:
            state = self._file(fi).node.opened
            if state is None or state.staged is None:
                raise Stale("it is not open for writing")
            write_all(state.staged.fileno(), data, offset)
        except BaseException as error:  # see `Calls.__call__`
            raise self.calls.failed(error) from error
        return len(data)

    def flush(self, _path: str | None, fi: Any) -> None:
        """close(2) waits for this."""
        self._by_handle(Opcode.FLUSH, fi, FLUSH_IN.pack(fi.fh, 0, 0, 0))

    def fsync(self, _path: str | None, datasync: int, fi: Any) -> None:
        """Bytes and intent survive a power failure."""
        self._by_handle(Opcode.FSYNC, fi, FSYNC_IN.pack(fi.fh, datasync, 0))

    def fallocate(self, _path: str | None, mode: int, offset: int, length: int, fi: Any) -> None:
        """Allocate or punch."""
        self._by_handle(Opcode.FALLOCATE, fi, FALLOCATE_IN.pack(fi.fh, offset, length, mode, 0))

    def lseek(self, _path: str | None, offset: int, whence: int, fi: Any) -> int:
        """Find data or a hole."""
        (found,) = LSEEK_OUT.unpack_from(self._by_handle(Opcode.LSEEK, fi, LSEEK_IN.pack(fi.fh, offset, whence, 0)))
        return int(found)

    def copy_file_range(self, source: Any, start: int, target: Any, at: int, length: int, flags: int) -> int:
        """Copy between two open files; returns how much."""
        nodeid = self._file(target).node.nodeid
        body = COPY_FILE_RANGE_IN.pack(source.fh, start, nodeid, target.fh, at, length, flags)
        (done, _) = WRITE_OUT.unpack_from(self._by_handle(Opcode.COPY_FILE_RANGE, source, body))
        return int(done)

    def release(self, _path: str | None, fi: Any) -> None:
        """The last close of an open file description."""
        self._by_handle(Opcode.RELEASE, fi, RELEASE_IN.pack(fi.fh, 0, 0, 0))
        self._pages.release(fi.fh)

    def _by_handle(self, opcode: Opcode, fi: Any, body: bytes) -> Body:
        return self.calls(opcode, self._file(fi).node.nodeid, body)

    def _file(self, fi: Any) -> FileHandle:
        handle = self._fs.handles.files.get(fi.fh)
        if handle is None:
            raise Stale("it is not open")
        return handle

    # -- directories -------------------------------------------------------------------------------------------------

    def opendir(self, path: str) -> int:
        """A handle."""
        with self._paths.node(path) as nodeid:
            (handle, *_) = OPEN_OUT.unpack_from(self.calls(Opcode.OPENDIR, nodeid))
            self._paths.hold(nodeid)
        return int(handle)

    def readdir(self, _path: str | None, handle: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """Names with their types and inode numbers; the last of the three says that libfuse keeps the position."""
        nodeid, position = self._directory(handle), 0
        while reply := bytes(self.calls(Opcode.READDIR, nodeid, READ_IN.pack(handle, position, LISTING, 0, 0, 0, 0))):
            at = 0
            while at < len(reply):
                ino, position, length, kind = DIRENT.unpack_from(reply, at)
                at += DIRENT.size
                yield _text(reply[at : at + length]), {"st_ino": ino, "st_mode": kind << 12}, 0
                at += length + -length % 8

    def fsyncdir(self, _path: str | None, datasync: int, handle: int) -> None:
        """Changes of names survive a power failure."""
        self.calls(Opcode.FSYNCDIR, self._directory(handle), FSYNC_IN.pack(handle, datasync, 0))

    def releasedir(self, _path: str | None, handle: int) -> None:
        """Closed."""
        nodeid = self._directory(handle)
        self.calls(Opcode.RELEASEDIR, nodeid, RELEASE_IN.pack(handle, 0, 0, 0))
        self._paths.forget(nodeid)

    def _directory(self, number: int) -> int:
        handle = self._fs.handles.directories.get(number)
        if handle is None:
            raise Stale("it is not open")
        return handle.node.nodeid


_U32: Final = 0xFFFFFFFF


def _no_session() -> Any:
    raise OSError(errno.ENOSYS, "libfuse answers reads in the thread that asks")


def _read(handle: FileHandle, offset: int, size: int) -> Body:
    state = handle.node.opened
    if state is None:
        raise Stale("it is not open")
    descriptor = state.descriptor()
    if descriptor is not None:
        return os.pread(descriptor, size, offset)
    if state.reader is None:
        raise Stale("it has no bytes")
    data = state.reader.read_now(offset, size)
    # ctypes copies from bytes, not from a view of a fetched buffer.
    return bytes(run(state.reader.read(offset, size)) if data is None else data)


def _stat(reply: Body, at: int) -> dict[str, int]:
    """``struct stat`` from ``struct fuse_attr``."""
    (
        ino,
        size,
        blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        block_size,
        _,
    ) = ATTR.unpack_from(reply, at)
    return {
        "st_ino": ino, "st_size": size, "st_blocks": blocks, "st_mode": mode, "st_nlink": nlink, "st_uid": uid, "st_gid": gid,
        "st_rdev": rdev, "st_blksize": block_size, "st_atime": _time(atime, atime_ns), "st_mtime": _time(mtime, mtime_ns),
        "st_ctime": _time(ctime, ctime_ns),
    }  # fmt: skip


def _time(seconds: int, nanoseconds: int) -> int:
    """Nanoseconds since the epoch; the protocol writes times before it as unsigned numbers."""
    return (seconds - (1 << 64) if seconds >> 63 else seconds) * SECOND + nanoseconds


def _text(raw: Body) -> str:
    return bytes(raw).decode("utf-8", "surrogateescape")
