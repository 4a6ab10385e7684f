"""Local files as objects: versions from stat(2), metadata as native attributes and one extended attribute.

Mode, owner and modification time of a file are its ``fsdriver-mode``, ``-uid``, ``-gid`` and ``-mtime``. What else an
object's metadata holds, or what the operating system did not let us set, is kept in ``user.fsdriver.metadata`` (JSON)
where the file system has extended attributes.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from fsdriver.backends.model import ObjectInfo
from fsdriver.errors import (
    AccessDenied,
    BackendError,
    ContainerMissing,
    FsdriverError,
    IsDirectory,
    NameTooLong,
    NoSpace,
    NotDirectory,
    NotFound,
    ReadOnly,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA_XATTR: Final = "user.fsdriver.metadata"
TEMPORARY: Final = ".fsdriver-tmp-"
"""How names of unfinished files begin; never listed, never keys."""

_KINDS: Final[Mapping[int, str]] = {
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}
_ERRORS: Final[Mapping[int, type[FsdriverError]]] = {
    errno.ENOENT: NotFound,
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.EROFS: ReadOnly,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.ENAMETOOLONG: NameTooLong,
    errno.EISDIR: IsDirectory,
    errno.ENOTDIR: NotDirectory,
}


def to_error(error: OSError, key: str) -> FsdriverError:
    """The driver's error for a failed system call on ``key``."""
    if isinstance(error, FsdriverError):
        return error
    made = _ERRORS.get(error.errno or 0, BackendError)(f"{error.strerror or error}", key)
    if isinstance(made, BackendError):
        made.temporary = error.errno in {errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE}
    return made


def missing_root(root: str) -> ContainerMissing:
    """The error for a root directory that does not exist."""
    return ContainerMissing("this directory does not exist or is not a directory; make it or correct the url", root)


def version_of(status: os.stat_result) -> str:
    """Size, modification time in ns and inode number: replacing a file changes it, writing in place too."""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"


def info_of(key: str, status: os.stat_result, target: str | None, stored: Mapping[str, str]) -> ObjectInfo:
    """What a listing and a HEAD say of a file.

    Parameters
    ----------
    target : str or None
        Of a symbolic link.
    stored : mapping
        What `read_metadata` found.
    """
    metadata = {
        "fsdriver-mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "fsdriver-uid": str(status.st_uid),
        "fsdriver-gid": str(status.st_gid),
        "fsdriver-mtime": str(status.st_mtime_ns),
    }
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        metadata["fsdriver-kind"] = kind
    if target is not None:
        metadata["fsdriver-target"] = quote(target, errors="surrogateescape")
    if kind in {"character", "block"}:
        metadata["fsdriver-rdev"] = str(status.st_rdev)
    metadata.update(stored)
    regular = stat.S_ISREG(status.st_mode)
    return ObjectInfo(key, status.st_size if regular else 0, status.st_mtime_ns, version_of(status), metadata)


def read_metadata(where: int | str, *, follow: bool = True) -> dict[str, str]:
    """What `apply_metadata` could not express natively; {} where there is nothing, or no extended attributes."""
    try:
        data = json.loads(os.getxattr(where, METADATA_XATTR, follow_symlinks=follow))
    except (OSError, ValueError, RecursionError):
        # No attribute, none possible here, or one another program spoilt: the native attributes stand.
        return {}
    return {str(name): str(value) for name, value in data.items()} if isinstance(data, dict) else {}


def has_xattrs(directory: str) -> bool:
    """Whether files in ``directory`` can have extended attributes of ours."""
    if not hasattr(os, "getxattr"):
        return False
    try:
        os.getxattr(directory, METADATA_XATTR)
    except OSError as error:
        return error.errno not in {errno.ENOTSUP, errno.ENOSYS}
    return True


def apply_metadata(descriptor: int, metadata: Mapping[str, str], xattrs: bool) -> list[str]:
    """Give an open file its attributes.

    Returns
    -------
    list of str
        Names that could be set neither natively nor as an extended attribute.
    """
    kept = {name: value for name, value in metadata.items() if name not in _NATIVE}
    kept.update(_apply_owner(descriptor, metadata))
    if "fsdriver-mode" in metadata:
        os.fchmod(descriptor, int(metadata["fsdriver-mode"], 8) & 0o7777)
    if kept and xattrs:
        try:
            os.setxattr(descriptor, METADATA_XATTR, json.dumps(kept, sort_keys=True).encode())
            kept = {}
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
    if "fsdriver-mtime" in metadata:
        moment = int(metadata["fsdriver-mtime"])
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, moment))
    return sorted(kept)


_NATIVE: Final = frozenset({"fsdriver-mode", "fsdriver-uid", "fsdriver-gid", "fsdriver-mtime"})


def _apply_owner(descriptor: int, metadata: Mapping[str, str]) -> dict[str, str]:
    """Set owner and group one by one; what is not permitted comes back to be kept as metadata."""
    refused = {}
    for name, owner in (("fsdriver-uid", True), ("fsdriver-gid", False)):
        if name not in metadata:
            continue
        number = int(metadata[name])
        status = os.fstat(descriptor)
        if number == (status.st_uid if owner else status.st_gid):
            continue
        try:
            os.fchown(descriptor, number if owner else -1, -1 if owner else number)
        except PermissionError:
            refused[name] = metadata[name]
    return refused
