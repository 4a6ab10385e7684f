"""Whether a process may read a file of the mount, decided as the kernel does it with ``default_permissions``."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsdriver.cache import passing

READ: Final = 0o4
SEARCH: Final = 0o1
SO_PEERGROUPS: Final = 59
"""Of asm-generic/socket.h; `socket` does not have it."""
MOST_GROUPS: Final = 256
"""What `socket.getsockopt` can take."""

_GROUP: Final = struct.Struct("I")
_ALL_IDS: Final = ["0", "0", str(0xFFFFFFFF)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: its effective user and group, and its supplementary groups."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Guarded:
    """Permission bits and owners of a file or a directory."""

    mode: int
    uid: int
    gid: int


def may_read(caller: Caller, file: Guarded, directories: Iterable[Guarded]) -> bool:
    """Whether a caller may read a file and search all directories above it; root may in any case.

    The first class that fits decides alone (owner, then group, then others): an owner without the bit is refused what
    others are granted (path_resolution(7), "Permissions").
    """
    if caller.uid == 0:
        return True
    return _granted(caller, file, READ) and all(_granted(caller, one, SEARCH) for one in directories)


def _granted(caller: Caller, what: Guarded, wanted: int) -> bool:
    if caller.uid == what.uid:
        bits = what.mode >> 6
    elif caller.gid == what.gid or what.gid in caller.groups:
        bits = what.mode >> 3
    else:
        bits = what.mode
    return bits & wanted == wanted


def caller_of(connection: socket.socket) -> Caller:
    """The process at the other end, as the kernel noted it when that connected.

    Raises
    ------
    OSError
        It is in more than `MOST_GROUPS` groups: being in one may forbid what others may do, so none can be left out.
    """
    uid, gid = passing.peer(connection)
    raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MOST_GROUPS * _GROUP.size)
    return Caller(uid, gid, frozenset(group for (group,) in _GROUP.iter_unpack(raw)))


def knows_all_ids() -> bool:
    """Whether every user and group of the machine has a number here.

    In a user namespace all others have the same one (user_namespaces(7)), which may be the owner's of a file.
    """
    maps = [Path("/proc/self/uid_map"), Path("/proc/self/gid_map")]
    return all(path.read_text(encoding="ascii").split() == _ALL_IDS for path in maps)


def above(mountpoint: str) -> list[Guarded]:
    """The directories above a mountpoint.

    Raises
    ------
    OSError
        One of them cannot be looked at, or has an access control list, which may forbid what its mode grants.
    """
    found = []
    for directory in Path(mountpoint).parents:
        status = os.stat(directory)
        if _has_list(directory):
            raise PermissionError(errno.EACCES, "has an access control list", str(directory))
        found.append(Guarded(status.st_mode, status.st_uid, status.st_gid))
    return found


def _has_list(directory: Path) -> bool:
    try:
        os.getxattr(directory, "system.posix_acl_access")
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise
    return True
