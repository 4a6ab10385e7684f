"""One directory on a plain file system and the same one in the tree: doing a step on both, and comparing what they show."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.mount.model.looking import differences, digest, look, outcome
from tests.mount.model.sides import Sides
from tests.waiting import wait_for

SLOTS = 3
TAKEN = frozenset({"ENOTEMPTY", "EEXIST"})
"""POSIX lets rename(2) and rmdir(2) say either of a directory that is not empty."""
MISSING = frozenset({"ENOENT", "ENOTDIR"})
"""fsspec says of what is asked for below a file only that it is missing."""


class Disagreement(AssertionError):
    """The tree showed something else than the plain directory."""


@dataclass
class Handle:
    """One open file on both sides."""

    plain: int
    ours: int
    flags: int

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def reads(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    def inode(self) -> int:
        return os.fstat(self.plain).st_ino


class Comparison:
    """One example: a fresh directory on both sides, and the files that are open in it.

    Parameters
    ----------
    sides : Sides
    name : str
        Of the directory.
    """

    def __init__(self, sides: Sides, name: str) -> None:
        self.sides = sides
        self.name = name
        self.plain = str(sides.plain / name)
        self.ours = str(sides.tree.root / name)
        self.slots: list[Handle | None] = [None] * SLOTS
        self.counter = 0
        self.done: list[str] = []
        self.left_before = sides.staged()
        os.mkdir(self.plain)
        os.mkdir(self.ours)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def data(self, size: int) -> bytes:
        """Bytes that no earlier step wrote."""
        self.counter += 1
        return bytes([self.counter % 251 + 1]) * size

    def step(self, name: str, *arguments: Any) -> Any:
        """Do one step by name; what was done is kept for the report of a failure."""
        self.done.append(f"{name}({', '.join(map(repr, arguments))})")
        return getattr(self, name)(*arguments)

    def same(self, expected: Any, shown: Any) -> Any:
        if expected != shown and not (expected in TAKEN and shown in TAKEN):
            raise Disagreement(f"plain: {expected!r}, ours: {shown!r}")
        return expected

    def both(self, action: Callable[[str], Any]) -> Any:
        """The same system calls on both sides."""
        return self.same(outcome(lambda: action(self.plain)), outcome(lambda: action(self.ours)))

    def by_fsspec(self, plain: Callable[[], Any], ours: Callable[[], Any]) -> None:
        expected, shown = outcome(plain), outcome(ours)
        if not {expected, shown} <= MISSING:
            self.same(expected, shown)

    def path(self, name: str) -> str:
        """A name as fsspec is asked for it."""
        return f"/{self.name}/{name}" if name else f"/{self.name}"

    def kind(self, name: str) -> str:
        """Type of a name on the plain side: as ls shows it, or "" for none."""
        try:
            return stat.filemode(os.lstat(f"{self.plain}/{name}").st_mode)[0]
        except OSError:
            return ""

    def by_symlink(self, name: str) -> bool:
        """A symbolic link is part of the path."""
        return os.path.realpath(f"{self.plain}/{name}") != f"{os.path.realpath(self.plain)}/{name}"

    def open_inodes(self, *, writing: bool) -> set[int]:
        return {one.inode() for one in self.slots if one is not None and (one.writes or not writing)}

    def being_written(self, name: str) -> bool:
        """Something at or below a name is open for writing."""
        inodes = self.open_inodes(writing=True)
        top = f"{self.plain}/{name}"
        found = [top, *(f"{at}/{one}" for at, _, files in os.walk(top) for one in files)]
        return any(os.path.lexists(one) and os.lstat(one).st_ino in inodes for one in found)

    def is_open(self, name: str, *, directories: bool) -> bool:
        """Something at or below a name is open; ``directories`` leaves out files."""
        opened = {
            one.inode()
            for one in self.slots
            if one is not None and (not directories or stat.S_ISDIR(os.fstat(one.plain).st_mode))
        }
        top = f"{self.plain}/{name}"
        found = [top, *(f"{at}/{one}" for at, below, files in os.walk(top) for one in (*below, *files))]
        return any(os.path.lexists(one) and os.lstat(one).st_ino in opened for one in found)

    # -- comparing -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that lstat, readlink, listdir, read and listxattr show, and all open files."""
        found = differences(look(self.plain), look(self.ours))
        for number, one in enumerate(self.slots):
            if one is not None:
                plain, ours = os.fstat(one.plain), os.fstat(one.ours)
                for field in ("st_mode",) if stat.S_ISDIR(plain.st_mode) else ("st_size", "st_nlink", "st_mode"):
                    want, have = getattr(plain, field), getattr(ours, field)
                    if want != have:
                        found.append(f"open file {number} has {field} {have}, should be {want}")
                if one.reads:
                    want, have = (
                        outcome(lambda at=at: digest(os.pread(at, 4 << 20, 0))) for at in (one.plain, one.ours)
                    )
                    if want != have:
                        found.append(f"open file {number} reads {have}, should be {want}")
        if found:
            raise Disagreement("; ".join(found))

    def check_fsspec(self) -> None:
        """The same names, types, sizes and contents through fsspec; files that are being written it need not show."""
        fs, found = self.sides.fs, []
        writing = self.open_inodes(writing=True)
        cut = len(fs._strip_protocol(self.path(""))) + 1
        shown = {
            info["name"][cut:]: info
            for _, directories, files in fs.walk(self.path(""), detail=True)
            for info in (*directories.values(), *files.values())
        }
        flat = {one[cut:] for one in fs.find(self.path(""), withdirs=True)} - {""}
        for name, seen in look(self.plain).items():
            info = shown.pop(name, None)
            there = name in flat
            flat.discard(name)
            if os.lstat(f"{self.plain}/{name}").st_ino in writing:
                continue
            if info is None or not there:
                found.append(f"{name!r} is missing in {'walk' if info is None else 'find'} of fsspec")
                continue
            if seen.type not in {"d", "-"}:
                continue
            if seen.type == "d":
                info = fs.info(self.path(name))  # a listing does not ask for attributes of directories
            if (info["type"], stat.S_IMODE(info["mode"])) != ({"d": "directory", "-": "file"}[seen.type], seen.mode):
                found.append(
                    f"{name!r} is {info['type']} {info['mode']:o} for fsspec, should be {seen.type} {seen.mode:o}"
                )
            elif seen.type == "-":
                have = outcome(lambda name=name: digest(fs.cat_file(self.path(name))))
                if (info["size"], have) != (seen.size, seen.content):
                    found.append(f"{name!r} is {info['size']} bytes, {have} for fsspec, should be {seen.content}")
        found += [f"{name!r} is there for fsspec and should not" for name in sorted(shown.keys() | flat)]
        if found:
            raise Disagreement("; ".join(found))

    def check_store(self) -> None:
        """After all was sent: every regular file is one object with its bytes, and there is nothing else."""
        self.sides.sync()
        held = self.open_inodes(writing=True)
        expected, skipped = {}, set()
        for name, seen in look(self.plain).items():
            if seen.type == "d":
                continue
            if os.lstat(f"{self.plain}/{name}").st_ino in held:
                skipped.add(name)
            else:
                expected[name] = seen.content if seen.type == "-" else []
        stored = {name: digest(data) for name, data in self.sides.foreign.objects(self.name).items()}
        stored = {name: data for name, data in stored.items() if name not in skipped}
        if stored != expected:
            raise Disagreement(f"the store holds {stored}, should hold {expected}")
        if not any(self.slots):
            # What this process was reading is put into the cache a moment later.
            try:
                wait_for(lambda: not self.sides.staged() - self.left_before, seconds=20)
            except AssertionError as error:
                left = self.sides.staged() - self.left_before
                raise Disagreement(f"nothing is open or owed, and these staging files are left: {left}") from error
