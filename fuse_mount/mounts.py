"""What is mounted where: /proc/self/mountinfo, and mountpoints whose daemon is gone."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsdriver.errors import ConfigError, NotDirectory, NotFound

log = logging.getLogger(__name__)

SUBTYPE: Final = "fsdriver"
FSTYPE: Final = f"fuse.{SUBTYPE}"
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_OWNER: Final = re.compile(r"(?:^|,)user_id=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of /proc/self/mountinfo.

    Attributes
    ----------
    directory, fstype, source : str
        Where, what type, and of what.
    device : str
        ``major:minor``.
    owner : int or None
        User id of who mounted a FUSE file system (its option ``user_id``, fuse(4)).
    """

    directory: str
    fstype: str
    source: str
    device: str
    owner: int | None = None


def mounts(table: Path = Path("/proc/self/mountinfo")) -> Iterator[Mounted]:
    """All mounts this process sees, oldest first (proc_pid_mountinfo(5))."""
    for line in table.read_bytes().decode("utf-8", "surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        owner = _OWNER.search(kind[-1])
        yield Mounted(_unescape(fields[4]), kind[0], _unescape(kind[1]), fields[2], int(owner[1]) if owner else None)


def mounted_at(directory: str) -> Mounted | None:
    """The topmost mount whose root is exactly ``directory`` (an absolute path without symlinks)."""
    found = None
    for mount in mounts():
        if mount.directory == directory:
            found = mount
    return found


def resolve(mountpoint: str | os.PathLike[str]) -> str:
    """The absolute path of a mountpoint, symlinks followed; asks nothing of what is mounted there, which may hang."""
    above, name = os.path.split(os.path.abspath(mountpoint))
    place = os.path.join(os.path.realpath(above), name)
    return place if mounted_at(place) is not None else os.path.realpath(place)


def is_stale(directory: str) -> bool:
    """A FUSE mount whose daemon is gone: every call answers ENOTCONN (statfs is one that the kernel never answers itself)."""
    try:
        os.statvfs(directory)
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False


def check_mountpoint(directory: str) -> None:
    """Explain why nothing can be mounted on ``directory``; returns when something can. Asks nothing of a mount of ours.

    Raises
    ------
    NotFound
        It does not exist.
    NotDirectory
        It is something else.
    ConfigError
        This program serves a tree there already.
    """
    if (mount := mounted_at(directory)) is not None and mount.fstype == FSTYPE:
        raise Busy(
            f"the mountpoint is busy: {mount.source} is mounted there; unmount it first: fsdriver umount {directory}",
            directory,
        )
    try:
        status = os.stat(directory)
    except FileNotFoundError as error:
        raise NotFound(f"the mountpoint does not exist; create it: mkdir -p {directory}", directory) from error
    except NotADirectoryError as error:
        raise NotDirectory("a parent of the mountpoint is not a directory", directory) from error
    if not os.path.isdir(directory):
        raise NotDirectory(
            f"the mountpoint is not a directory (mode {status.st_mode:o}); give an empty directory", directory
        )


class Busy(ConfigError):
    """The mountpoint is in use."""

    errno_code = errno.EBUSY


def _unescape(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
