"""The operations of the FUSE protocol, one module per family.

Each takes the `FileSystem` and a `Request` and returns the body of the reply, or a coroutine of it where it may have to wait.
Bodies are unpacked before the first wait: the buffer they lie in is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdriver.fuse_mount.protocol import Opcode

from . import attributes, directories, files, namespace, ranges, reads, xattrs

if TYPE_CHECKING:
    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.session import Operation, Session

_TABLE: Final[Mapping[Opcode, Callable[..., Any]]] = {
    Opcode.LOOKUP: namespace.lookup,
    Opcode.FORGET: namespace.forget,
    Opcode.BATCH_FORGET: namespace.batch_forget,
    Opcode.SYMLINK: namespace.symlink,
    Opcode.READLINK: namespace.readlink,
    Opcode.MKNOD: namespace.mknod,
    Opcode.MKDIR: namespace.mkdir,
    Opcode.UNLINK: namespace.unlink,
    Opcode.RMDIR: namespace.rmdir,
    Opcode.RENAME: namespace.rename,
    Opcode.RENAME2: namespace.rename2,
    Opcode.LINK: namespace.link,
    Opcode.GETATTR: attributes.getattr_,
    Opcode.SETATTR: attributes.setattr_,
    Opcode.STATX: attributes.statx,
    Opcode.ACCESS: attributes.access,
    Opcode.STATFS: attributes.statfs,
    Opcode.OPEN: files.open_,
    Opcode.CREATE: files.create,
    Opcode.TMPFILE: files.tmpfile,
    Opcode.WRITE: files.write,
    Opcode.FLUSH: files.flush,
    Opcode.FSYNC: files.fsync,
    Opcode.RELEASE: files.release,
    Opcode.FALLOCATE: ranges.fallocate,
    Opcode.LSEEK: ranges.lseek,
    Opcode.COPY_FILE_RANGE: ranges.copy_file_range,
    Opcode.COPY_FILE_RANGE_64: ranges.copy_file_range_64,
    Opcode.IOCTL: ranges.ioctl,
    Opcode.OPENDIR: directories.opendir,
    Opcode.READDIR: directories.readdir,
    Opcode.READDIRPLUS: directories.readdirplus,
    Opcode.RELEASEDIR: directories.releasedir,
    Opcode.FSYNCDIR: directories.fsyncdir,
    Opcode.SYNCFS: directories.syncfs,
    Opcode.GETXATTR: xattrs.getxattr,
    Opcode.LISTXATTR: xattrs.listxattr,
    Opcode.SETXATTR: xattrs.setxattr,
    Opcode.REMOVEXATTR: xattrs.removexattr,
    Opcode.DESTROY: attributes.destroy,
}
"""What is missing answers ENOSYS, which the kernel takes for "never ask again": POLL, BMAP, locks and DAX mappings, all of
which it then does itself or refuses."""


def bind(fs: FileSystem, session: Callable[[], Session]) -> dict[int, Operation]:
    """The operations of one mount, by opcode."""
    table: dict[int, Operation] = {opcode: partial(operation, fs) for opcode, operation in _TABLE.items()}
    table[Opcode.READ] = reads.Reads(fs, session)
    return table
