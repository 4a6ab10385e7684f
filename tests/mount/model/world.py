"""The steps of the model: each does the same on the plain directory and through one face, and compares at once."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from tests.mount.model.comparison import SLOTS, Comparison, Handle
from tests.mount.model.looking import outcome

NAMES = ("a", "b")
PATHS = tuple(
    "/".join(parts)
    for parts in (
        *((one,) for one in NAMES),
        *((one, two) for one in NAMES for two in NAMES),
        *((one, two, three) for one in NAMES for two in NAMES for three in NAMES),
    )
)
SIZES = (0, 1, 10, 4096, 5000, 131_072, 300_000)
MODES = (0o644, 0o600, 0o755, 0o444, 0o4755, 0o2711, 0o1777)
PARTLY = 1 << 20
"""Bytes above which a file is fetched in parts."""
COLD_SIZES = (10, 5000, 2_500_000)
READ, WRITE, UPDATE, APPEND = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND


class World(Comparison):
    """The steps; parameters as of `Comparison`."""

    # -- names, through the mount --------------------------------------------------------------------------------------

    def write(self, name: str, size: int) -> None:
        """Create or overwrite, as ``open(…, "wb")``."""
        data = self.data(size)
        self.both(lambda root: _write(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, data))

    def create(self, name: str, size: int) -> None:
        """O_EXCL."""
        data = self.data(size)
        self.both(lambda root: _write(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, data))

    def append(self, name: str, size: int) -> None:
        data = self.data(size)
        self.both(lambda root: _write(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, data))

    def write_at(self, name: str, offset: int, size: int) -> None:
        data = self.data(size)
        self.both(lambda root: _write(f"{root}/{name}", os.O_RDWR, data, offset))

    def truncate(self, name: str, size: int) -> None:
        self.both(lambda root: os.truncate(f"{root}/{name}", size))

    def mkdir(self, name: str) -> None:
        self.both(lambda root: os.mkdir(f"{root}/{name}"))

    def rmdir(self, name: str) -> None:
        self.both(lambda root: os.rmdir(f"{root}/{name}"))

    def unlink(self, name: str) -> None:
        self.both(lambda root: os.unlink(f"{root}/{name}"))

    def rename(self, one: str, other: str) -> None:
        self.both(lambda root: os.rename(f"{root}/{one}", f"{root}/{other}"))

    def link(self, one: str, other: str) -> None:
        self.both(lambda root: os.link(f"{root}/{one}", f"{root}/{other}", follow_symlinks=False))

    def symlink(self, target: str, name: str) -> None:
        self.both(lambda root: os.symlink(target, f"{root}/{name}"))

    def fifo(self, name: str) -> None:
        self.both(lambda root: os.mkfifo(f"{root}/{name}", 0o640))

    def chmod(self, name: str, mode: int) -> None:
        self.both(lambda root: os.chmod(f"{root}/{name}", mode))

    def utime(self, name: str, seconds: int) -> None:
        times = (seconds * 10**9 + 5, seconds * 10**9 + 123_456_789)
        self.both(lambda root: os.utime(f"{root}/{name}", ns=times))

    def setxattr(self, name: str, value: int) -> None:
        self.both(lambda root: os.setxattr(f"{root}/{name}", "user.model", b"%d" % value))

    def removexattr(self, name: str) -> None:
        self.both(lambda root: os.removexattr(f"{root}/{name}", "user.model"))

    def move(self, name: str, to: int) -> None:
        """To another tier, where there are any: nothing that can be compared changes."""
        if to < len(self.sides.tiers) > 1 and self.kind(name) == "-" and not self.being_written(name):
            os.setxattr(f"{self.ours}/{name}", "user.fsdriver.tier", self.sides.tiers[to].encode())

    # -- open files ----------------------------------------------------------------------------------------------------

    def open(self, slot: int, name: str, flags: int) -> None:
        """Open into a slot; what was open there is closed first."""
        self.close(slot)
        opened: list[int] = []

        def one(root: str) -> str:
            opened.append(os.open(f"{root}/{name}", flags | os.O_NONBLOCK, 0o640))
            return ""

        try:
            if self.both(one) == "":
                self.slots[slot] = Handle(opened[0], opened[1], flags)
                opened.clear()
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def close(self, slot: int) -> None:
        one, self.slots[slot] = self.slots[slot], None
        if one is not None:
            os.close(one.plain)
            self.same(None, outcome(lambda: os.close(one.ours)))

    def by_handle(self, slot: int, action: Callable[[int], Any]) -> None:
        one = self.slots[slot]
        if one is not None:
            self.same(outcome(lambda: action(one.plain)), outcome(lambda: action(one.ours)))

    def handle_write(self, slot: int, offset: int, size: int) -> None:
        data = self.data(size)
        self.by_handle(slot, lambda descriptor: os.pwrite(descriptor, data, offset))

    def handle_truncate(self, slot: int, size: int) -> None:
        self.by_handle(slot, lambda descriptor: os.ftruncate(descriptor, size))

    def handle_chmod(self, slot: int, mode: int) -> None:
        self.by_handle(slot, lambda descriptor: os.fchmod(descriptor, mode))

    def handle_fsync(self, slot: int) -> None:
        self.by_handle(slot, os.fsync)

    def handle_dup_close(self, slot: int) -> None:
        """close(2) of a duplicate: commits, and the file stays open."""
        self.by_handle(slot, lambda descriptor: os.close(os.dup(descriptor)))

    # -- fsspec --------------------------------------------------------------------------------------------------------

    def _fsspec_may_change(self, *names: str) -> bool:
        """Where fsspec and the mount promise the same: no link on the way, nobody writes it, its directory is there."""
        return not any(
            self.by_symlink(name) or self.being_written(name) or self.kind(os.path.dirname(name) or ".") != "d"
            for name in names
        )

    def fs_write(self, name: str, size: int) -> None:
        data = self.data(size)
        if self._fsspec_may_change(name) and self.kind(name) in {"", "-"}:
            self.by_fsspec(
                lambda: self.sides.replace(f"{self.plain}/{name}", data),
                lambda: self.sides.fs.pipe_file(self.path(name), data),
            )

    def fs_append(self, name: str, size: int) -> None:
        """``ab`` of fsspec: the present bytes and more, published at close."""
        data = self.data(size)
        if not self._fsspec_may_change(name) or self.kind(name) not in {"", "-"}:
            return

        def plain() -> None:
            path = f"{self.plain}/{name}"
            before = b""
            if os.path.exists(path):
                with open(path, "rb") as file:
                    before = file.read()
            self.sides.replace(path, before + data)

        def ours() -> None:
            with self.sides.fs.open(self.path(name), "ab") as file:
                file.write(data)

        self.by_fsspec(plain, ours)

    def fs_read(self, name: str, start: int, end: int) -> None:
        if self.being_written(name) or self.by_symlink(name) or self.kind(name) not in {"", "-", "d"}:
            return

        def plain() -> bytes:
            with open(f"{self.plain}/{name}", "rb") as file:
                return file.read()[start:end]

        self.by_fsspec(plain, lambda: self.sides.fs.cat_file(self.path(name), start, end))

    def fs_copy(self, one: str, other: str) -> None:
        if (
            self._fsspec_may_change(one, other)
            and self.kind(one) == "-"
            and self.kind(other) in {"", "-"}
            and one != other
        ):
            self.by_fsspec(
                lambda: self.sides.copy(f"{self.plain}/{one}", f"{self.plain}/{other}"),
                lambda: self.sides.fs.cp_file(self.path(one), self.path(other)),
            )

    def fs_move(self, one: str, other: str) -> None:
        if self._fsspec_may_change(one, other) and self.kind(one) not in {"l", "p"} and self.kind(other) != "d":
            # To who has it open here, what another process moves is as if it had been removed.
            if other.startswith(one) or self.is_open(one, directories=False):
                return
            self.by_fsspec(
                lambda: os.rename(f"{self.plain}/{one}", f"{self.plain}/{other}"),
                lambda: self.sides.fs.mv(self.path(one), self.path(other), recursive=True),
            )

    def fs_remove(self, name: str) -> None:
        if self._fsspec_may_change(name) and self.kind(name) and not self.is_open(name, directories=True):
            path = f"{self.plain}/{name}"
            self.by_fsspec(
                lambda: self.sides.clear(path) if self.kind(name) == "d" else os.unlink(path),
                lambda: self.sides.fs.rm(self.path(name), recursive=True),
            )

    def fs_mkdir(self, name: str) -> None:
        if self._fsspec_may_change(name):
            self.by_fsspec(
                lambda: os.mkdir(f"{self.plain}/{name}"),
                lambda: self.sides.fs.mkdir(self.path(name), create_parents=False),
            )

    def fs_rmdir(self, name: str) -> None:
        if self._fsspec_may_change(name) and not self.is_open(name, directories=True):
            self.by_fsspec(
                lambda: os.rmdir(f"{self.plain}/{name}"),
                lambda: self.sides.fs.rmdir(self.path(name)),
            )

    # -- another program on the store ----------------------------------------------------------------------------------

    def foreign_put(self, name: str, size: int) -> None:
        """Where everything was sent and nobody has the file open; seen after a refresh. Never the same bytes again."""
        data = self.data(max(size, 1))
        if self._foreign_may_change(name) and self.kind(name) in {"", "-"}:
            self.sides.sync()
            self.sides.foreign.put(f"{self.name}/{name}", data)
            path = f"{self.plain}/{name}"
            if os.path.lexists(path):
                os.unlink(path)
            self.sides.replace(path, data)
            self.sides.refresh(f"{self.name}/{name}".rpartition("/")[0])

    def foreign_delete(self, name: str) -> None:
        if self._foreign_may_change(name) and self.kind(name) == "-":
            self.sides.sync()
            self.sides.foreign.delete(f"{self.name}/{name}")
            os.unlink(f"{self.plain}/{name}")
            self.sides.refresh(f"{self.name}/{name}".rpartition("/")[0])

    def cold_reader(self, slot: int, name: str, other: str, size: int, how: str) -> None:
        """Open what this host has no bytes of, and take its name, or its bytes from the store, before it is read."""
        if not self._foreign_may_change(name) or self.kind(name) not in {"", "-"}:
            return
        self.foreign_put(name, size)
        self.open(slot, name, READ)
        if size > PARTLY:
            self.by_handle(slot, lambda descriptor: os.pread(descriptor, 10, 5))
        if how == "unlink":
            self.unlink(name)
        elif how == "replace":
            self.write(other, 10)
            self.rename(other, name)
        elif how == "rename":
            self.rename(name, other)
        else:
            self.rename(name, other)
            self.unlink(other)
        self.sync()

    def _foreign_may_change(self, name: str) -> bool:
        path = f"{self.plain}/{name}"
        if self.by_symlink(name) or self.kind(os.path.dirname(name) or ".") != "d":
            return False
        return not os.path.lexists(path) or os.lstat(path).st_ino not in self.open_inodes(writing=False)

    # -- the daemon ----------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        self.sides.sync()

    def end(self) -> None:
        """Close all files."""
        for slot in range(SLOTS):
            self.close(slot)


def _write(path: str, flags: int, data: bytes, offset: int | None = None) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o640)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, "the model writes no pipes", path)
        return os.write(descriptor, data) if offset is None else os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)
