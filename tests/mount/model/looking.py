"""What one side of the model shows: a tree of names, in a form that two sides can be compared in."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CHOSEN_TIMES = 1_000_000_000
"""Seconds since 1970 below which a time was set by the model; later ones are of the clock and are not compared."""


@dataclass(frozen=True)
class Seen:
    """One name as lstat(2), readlink(2), read(2) and listxattr(2) show it."""

    type: str
    mode: int
    owner: tuple[int, int]
    size: int | None
    links: tuple[str, ...]
    mtime_ns: int | None
    content: Any
    xattrs: dict[str, bytes]


def outcome(action: Callable[[], Any]) -> Any:
    """The result of an operation, or the name of the error it fails with."""
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))


def digest(data: bytes) -> Any:
    """Contents in a form that is short to print: runs of equal bytes."""
    runs: list[list[int]] = []
    start = 0
    while start < len(data):
        stop = start + 1
        rest = data[start : start + 1]
        step = 1 << 16
        while stop < len(data) and step:
            if data[stop : stop + step] == rest * len(data[stop : stop + step]):
                stop += len(data[stop : stop + step])
            else:
                step >>= 4
        runs.append([data[start], stop - start])
        start = stop
    return runs


def chosen_time(status: os.stat_result) -> int | None:
    return status.st_mtime_ns if status.st_mtime < CHOSEN_TIMES else None


def names_below(root: str) -> list[str]:
    """All names below a directory, relative, sorted; every directory is listed."""
    found: list[str] = []
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(f"{root}/{above}" if above else root) as entries:
            for entry in entries:
                name = f"{above}/{entry.name}" if above else entry.name
                found.append(name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
    return sorted(found)


def look(root: str) -> dict[str, Seen]:
    """Everything below a directory."""
    statuses = {name: os.lstat(f"{root}/{name}") for name in names_below(root)}
    groups: dict[int, list[str]] = {}
    for name, status in statuses.items():
        groups.setdefault(status.st_ino, []).append(name)
    return {name: _seen(f"{root}/{name}", status, groups[status.st_ino]) for name, status in statuses.items()}


def _seen(path: str, status: os.stat_result, group: list[str]) -> Seen:
    content: Any = None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = digest(file.read())
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    directory = stat.S_ISDIR(status.st_mode)
    return Seen(
        stat.filemode(status.st_mode)[0],
        stat.S_IMODE(status.st_mode),
        (status.st_uid, status.st_gid),
        None if directory else status.st_size,
        () if directory else (*group, f"nlink {status.st_nlink}"),
        None if directory else chosen_time(status),
        content,
        {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)},
    )


def differences(expected: dict[str, Seen], shown: dict[str, Seen]) -> list[str]:
    """What ``shown`` shows otherwise than ``expected``, in words; empty if nothing."""
    found = [f"{name!r} is missing" for name in sorted(expected.keys() - shown.keys())]
    found += [
        f"{name!r} is there ({shown[name].type}) and should not" for name in sorted(shown.keys() - expected.keys())
    ]
    for name in sorted(expected.keys() & shown.keys()):
        for field in Seen.__dataclass_fields__:
            want, have = getattr(expected[name], field), getattr(shown[name], field)
            if want != have:
                found.append(f"{name!r} has {field} {have!r}, should be {want!r}")
    return found
