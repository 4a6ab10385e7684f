"""What a tree looks like from outside, and how two of them differ."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

ALWAYS = ("kind", "mode", "uid", "gid", "size", "content", "target", "links", "rdev", "xattrs")
"""What every file system shows alike; sizes and link counts of directories are its own business."""


@dataclass(frozen=True)
class Seen:
    """What stat, read, readlink and listxattr say of one name."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    content: str
    target: str
    links: frozenset[str]
    rdev: int
    xattrs: tuple[tuple[str, bytes], ...]
    mtime_ns: int
    ino: int


def snapshot(root: Path) -> dict[str, Seen]:
    """Every name below ``root``, by relative path."""
    paths = [""]
    for directory, names, files in os.walk(root):
        relative = os.path.relpath(directory, root)
        paths += [os.path.normpath(os.path.join(relative, name)) for name in (*names, *files)]
    statuses = {path: os.lstat(root / path) for path in paths}
    by_inode: dict[int, set[str]] = {}
    for path, status in statuses.items():
        by_inode.setdefault(status.st_ino, set()).add(path)
    return {path: _seen(root / path, status, by_inode[status.st_ino]) for path, status in statuses.items()}


def _seen(path: Path, status: os.stat_result, same: set[str]) -> Seen:
    regular, directory = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
    return Seen(
        kind=stat.filemode(status.st_mode)[0],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=0 if directory else status.st_size,
        content=_digest(path) if regular else "",
        target=os.readlink(path) if stat.S_ISLNK(status.st_mode) else "",
        links=frozenset() if directory else frozenset({*same, f"{status.st_nlink} links"}),
        rdev=status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0,
        xattrs=tuple(sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in names
                            if not name.startswith("user.fsdriver."))),
        mtime_ns=status.st_mtime_ns,
        ino=status.st_ino,
    )  # fmt: skip


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(
    expected: dict[str, Seen],
    actual: dict[str, Seen],
    *,
    attributes: Collection[str] = ALWAYS,
    varying: Collection[str] = (),
) -> list[str]:
    """One line for each name or attribute that differs; [] for equal trees.

    ``varying`` are patterns of paths whose bytes and sizes two runs of the program never share.
    """
    found = [f"{path!r} is missing" for path in sorted(expected.keys() - actual.keys())]
    found += [f"{path!r} is too many" for path in sorted(actual.keys() - expected.keys())]
    for path in sorted(expected.keys() & actual.keys()):
        one, other = expected[path], actual[path]
        ignored = {"content", "size"} if any(fnmatch.fnmatch(path, pattern) for pattern in varying) else set()
        for name in attributes:
            if name not in ignored and getattr(one, name) != getattr(other, name):
                found.append(f"{path!r}: {name} is {getattr(other, name)!r}, not {getattr(one, name)!r}")
    return found


EVERYTHING = tuple(field.name for field in fields(Seen))
"""What a remount must bring back, the times of the last change and the inode numbers among it."""
