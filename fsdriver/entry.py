"""What the tree knows about one name: the attributes every face shows."""

from __future__ import annotations

import operator
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

NO_XATTRS: Final[Mapping[str, bytes]] = MappingProxyType({})


class Kind(StrEnum):
    """Type of a directory entry, as written into attribute objects and ``fsdriver-kind``."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character"
    BLOCK = "block"


TYPE_BITS: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        Kind.FILE: stat.S_IFREG,
        Kind.DIRECTORY: stat.S_IFDIR,
        Kind.SYMLINK: stat.S_IFLNK,
        Kind.FIFO: stat.S_IFIFO,
        Kind.SOCKET: stat.S_IFSOCK,
        Kind.CHARACTER: stat.S_IFCHR,
        Kind.BLOCK: stat.S_IFBLK,
    }
)
KIND_OF_TYPE: Final[Mapping[int, Kind]] = MappingProxyType({bits: kind for kind, bits in TYPE_BITS.items()})


@dataclass(slots=True)
class Entry:
    """Attributes of one name. Treated as immutable: a change makes a new one (`altered`).

    Attributes
    ----------
    kind : Kind
    size : int
        Bytes; of a symlink the length of its target.
    version : str or None
        Version (etag) of the bytes in the backend; None while no backend holds them yet, and for directories.
    mode : int
        Permission bits (with setuid, setgid, sticky), without the type.
    uid, gid : int
    atime_ns, mtime_ns, ctime_ns : int
        Nanoseconds since the epoch.
    ino : int
        63-bit inode number, stable over rename, upload and remount.
    target : str
        Of a symlink.
    rdev : int
        Of a device node.
    links : tuple of str
        All names (route paths) of a hard-linked file, sorted; empty for a file with one name.
    xattrs : mapping of str to bytes
        Full names (``user.…``).
    staging : str or None
        Local file with the bytes while the backend does not have them (pending write-back); readers open it.
    key : str or None
        Full key that holds the bytes where it is not the one the path maps to: a rename whose copy is pending, or an
        object whose key is also a directory (``a%file``).
    """

    kind: Kind
    size: int = 0
    version: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    ino: int = 0
    target: str = ""
    rdev: int = 0
    links: tuple[str, ...] = ()
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)
    staging: str | None = None
    key: str | None = None

    @property
    def st_mode(self) -> int:
        """Type and permission bits, as in stat(2)."""
        return TYPE_BITS[self.kind] | self.mode

    @property
    def nlink(self) -> int:
        """Names of the file; 2 for a directory (those of its subdirectories come on top)."""
        return 2 if self.kind is Kind.DIRECTORY else max(1, len(self.links))


_fields: Final = operator.attrgetter(*Entry.__slots__)


def altered(entry: Entry, **fields: Any) -> Entry:
    """``entry`` with other values of some fields: `dataclasses.replace`, at a fifth of its cost."""
    made = Entry(*_fields(entry))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@dataclass(slots=True, frozen=True)
class Changes:
    """Attributes to set; None leaves one as it is. Units as in `Entry`."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    xattrs: Mapping[str, bytes] | None = None
