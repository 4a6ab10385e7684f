"""Reading one local file, and writing one under a temporary name before it gets its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import threading
from typing import Final

from fsdriver.backends.local_attributes import TEMPORARY
from fsdriver.backends.source import Source, Watched, check_settled
from fsdriver.errors import Corrupt, Stale

STEP: Final = 8 << 20
"""Bytes of one system call."""
COPY_STEP: Final = 64 << 20
"""Bytes the kernel copies before a cancellation is looked for."""


class Cancelled(Exception):
    """The caller of a write has gone."""


class Writing:
    """One write in a thread, which its caller may cancel until the file gets its name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._published = False

    def check(self) -> None:
        """Raise `Cancelled` once `cancel` was called."""
        if self._cancelled:
            raise Cancelled

    def publish(self) -> None:
        """From now on it cannot be cancelled any more. Raises `Cancelled` if it was."""
        with self._lock:
            self.check()
            self._published = True

    def cancel(self) -> bool:
        """Whether it was in time: the file gets no name."""
        with self._lock:
            self._cancelled = True
            return not self._published


def begin(directory: int) -> tuple[str, int]:
    """An unfinished file: its temporary name, and a descriptor that holds its lock."""
    while True:
        name = f"{TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        # Another process took it for one whose writer is gone, before it was locked.
        os.close(descriptor)


def discard(name: str, directory: int) -> None:
    """Remove an unfinished file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def link(temporary: str, name: str, parent: int, key: str) -> bool:
    """Give a finished file a new name in one step; False where the file system has no hard links."""
    try:
        os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        raise Stale("the file exists already", key) from None
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
            raise
        return False
    os.unlink(temporary, dir_fd=parent)
    return True


class Buffered:
    """How bytes get into local files and out of them: through the page cache."""

    def fill(self, descriptor: int, source: Source, writing: Writing) -> None:
        """Write a source into a new file; files are copied by the kernel, sharing blocks where it can. Raises Cancelled."""
        if isinstance(source, bytes | memoryview):
            view = memoryview(source).cast("B")
            while view:
                writing.check()
                view = view[os.write(descriptor, view[:STEP]) :]
            return
        with open(source.path if isinstance(source, Watched) else source, "rb", buffering=0) as file:
            try:
                while os.copy_file_range(file.fileno(), descriptor, COPY_STEP):
                    writing.check()
                    check_settled(source)
            except OSError as error:
                # Between some file systems the kernel cannot copy; nothing was copied then.
                if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
                    raise
                with open(descriptor, "wb", closefd=False) as out:
                    while data := file.read(STEP):
                        writing.check()
                        out.write(data)

    def synced(self, descriptor: int) -> None:
        """What was filled is on the disk."""

    def read(self, descriptor: int, start: int, stop: int, key: str) -> memoryview:
        """Bytes of an open file, which has them. Raises Corrupt if it has them no longer."""
        view = memoryview(bytearray(max(0, stop - start)))
        filled = 0
        while filled < len(view):
            count = os.preadv(descriptor, [view[filled : filled + STEP]], start + filled)
            if count == 0:
                raise cut_short(key, start + filled, stop)
            filled += count
        return view.toreadonly()


def cut_short(key: str, end: int, wanted: int) -> Corrupt:
    """The error for a file that was truncated while it was read."""
    return Corrupt(f"the file lost bytes while it was read: {end} of {wanted}", key)
