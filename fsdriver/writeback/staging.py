"""Staging: local files that hold written bytes until every tier that is owed them has them.

Staging lives on the cache's file system, so that sealing an uploaded file, and un-sealing a cached one to write to it, are
renames. Who has a staging file open holds flock(LOCK_SH) on it: no other process seals it away meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Self, TypeAlias

import xxhash

from fsdriver.cache import write_all
from fsdriver.errors import NoSpace, Stale
from fsdriver.writeback.syncing import SharedSync, sync_directories, sync_directory

log = logging.getLogger(__name__)

Signature: TypeAlias = tuple[int, int]
"""Size and mtime in nanoseconds: what moves when bytes are written."""

_counter: Final = itertools.count()


def signature(descriptor: int) -> Signature:
    """The signature of an open file."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def digest_of(data: bytes) -> bytes:
    """What tells bytes of a staging file from others."""
    return xxhash.xxh3_128_digest(data)


@functools.lru_cache(maxsize=1)
def _owner(pid: int) -> str:
    namespace = os.stat("/proc/self/ns/pid").st_ino
    with open("/proc/self/stat", "rb") as file:
        began = int(file.read().rpartition(b")")[2].split()[19])
    return f"{namespace:x}.{pid:x}.{began:x}"


def owner() -> str:
    """Name of this process that no other has on this host: PID namespace, PID, and when it began (proc_pid_stat(5))."""
    return _owner(os.getpid())


def origin_of(source: str, version: str | None) -> str:
    """Name of the bytes of one version of a key, which may be copied to another."""
    return f"{version}@{source}"


class StagedFile:
    """One staging file that is open for writing.

    Attributes
    ----------
    path : Path
        Where it lies; written through `fileno` (or by the kernel, through a backing id).
    base : str or None
        Version the store held when the file was staged: ABSENT ("") for a new name, None to replace whatever is there.
    committed : tuple or None
        Signature at the last commit; None before the first.
    uploaded : tuple or None
        Signature of what was last uploaded.
    digest : bytes or None
        Of the bytes that were last uploaded, where stores through a mapping may have left the signature as it was.
    written : bool
        Something was committed: the bytes are no longer those of ``base``.
    held : bool
        The journal keeps what was last synced, against a crash; the next commit ends that.
    versions : dict
        Key → version the store gave to bytes of this file (several keys: a hard-linked file).
    replaces : str or None
        The staging file with the bytes that were there before; it goes once nobody is owed them.
    origin : str or None
        The bytes it began with: a frozen staging file that is owed, or one version of a key (`origin_of`).
    placed : bool
        Its name in the staging directory survives power loss.
    inherited : bool
        It is the very file that an open cache reader has: descriptors and backing ids of that reader stay valid.
    """

    __slots__ = (
        "base", "committed", "descriptor", "digest", "held", "inherited", "origin", "path", "placed", "replaces", "uploaded",
        "versions", "written",
    )  # fmt: skip

    def __init__(self, path: Path, descriptor: int, base: str | None, *, inherited: bool = False) -> None:
        self.path = path
        self.descriptor = descriptor
        self.base = base
        self.inherited = inherited
        self.replaces: str | None = None
        self.committed: Signature | None = None
        self.uploaded: Signature | None = None
        self.digest: bytes | None = None
        self.versions: dict[str, str] = {}
        self.origin: str | None = None
        self.written = False
        self.held = False
        self.placed = False

    def fill(self, data: bytes) -> None:
        """Write all of ``data`` from the beginning."""
        write_all(self.descriptor, data, 0)

    def fileno(self) -> int:
        """The read-write descriptor."""
        return self.descriptor

    @property
    def size(self) -> int:
        """Bytes now."""
        return os.fstat(self.descriptor).st_size

    def status(self) -> os.stat_result | None:
        """As fstat(2); None once it is closed, which another thread may just be doing."""
        try:
            return os.fstat(self.descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return None

    def changed(self) -> bool:
        """Bytes were written since the last commit (stores through a mapping show once the pages were flushed)."""
        if self.committed is None or signature(self.descriptor) != self.committed:
            return True
        return self.digest is not None and self.digest != digest_of(os.pread(self.descriptor, self.committed[0], 0))

    def close(self) -> None:
        """Close the descriptor, and with it the lock; the file stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class StagedReader:
    """Reads a staging file of a pending write: the interface of a cache reader over bytes no store has yet.

    Parameters
    ----------
    path : Path
    closed : int or None
        Bytes that the file had when it was closed: it is read as it was then, or not at all, for another process may be
        writing to it again. None: as it is now.

    Raises
    ------
    Stale
        It is being written to; so do the reads, from then on.
    """

    complete: Final = True

    def __init__(self, path: Path, closed: int | None = None) -> None:
        self.path = path
        self.closed = closed
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self._signature = signature(self._descriptor)
        if closed is not None and self._signature[0] < closed:
            self.close()
            raise Stale("it is being written to", str(path))

    @property
    def size(self) -> int:
        """Bytes now, or when it was closed."""
        return os.fstat(self._descriptor).st_size if self.closed is None else self.closed

    def fileno(self) -> int:
        """A read-only descriptor."""
        return self._descriptor

    def read_now(self, offset: int, size: int) -> bytes:
        """Bytes at ``offset``; short only at the end."""
        if self.closed is None:
            return os.pread(self._descriptor, size, offset)
        data = os.pread(self._descriptor, max(0, min(size, self.closed - offset)), offset)
        if signature(self._descriptor) != self._signature:
            raise Stale("it was written to while it was read", str(self.path))
        return data

    async def read(self, offset: int, size: int) -> bytes:
        """Same as `read_now`."""
        return self.read_now(offset, size)

    async def wait_complete(self) -> None:
        """The file is complete."""

    def in_place(self) -> bool:
        """Its name still leads to the file it reads."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Staging:
    """The staging directory, and the staged files this process has open.

    Parameters
    ----------
    directory : Path
        ``<cache_dir>/.staging``.

    Attributes
    ----------
    disowned : int
        Files that were acknowledged and whose catalog is gone, when that was last looked for.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._make()
        self._open: dict[str, StagedFile] = {}
        self._by_origin: dict[str, StagedFile] = {}
        self._left: set[str] = set()
        self.disowned = 0
        self._lock = threading.Lock()
        self._sync_names = SharedSync(self._sync_directory)

    def _make(self) -> None:
        for directory in (self.directory.parent, self.directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def name(self) -> Path:
        """A path no other staging file has."""
        if not self.directory.is_dir():
            log.warning("%s was removed while in use; what the stores did not have yet is lost", self.directory)
            self._make()
        return self.directory / f"{time.time_ns():x}-{owner()}-{next(_counter):x}"

    def new(self, base: str | None) -> StagedFile:
        """An empty staging file.

        Raises
        ------
        NoSpace
            The cache's file system is full, or the user's quota of it.
        """
        path = self.name()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace(
                    f"there is no room for it ({error.strerror}); free space in {self.directory.parent} or move [cache] dir",
                    str(path),
                ) from error
            raise
        return self._register(StagedFile(path, descriptor, base))

    def adopt(self, path: Path, base: str | None, *, inherited: bool) -> StagedFile:
        """A file that was renamed into staging."""
        return self._register(StagedFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC), base, inherited=inherited))

    def opened(self, path: str) -> StagedFile | None:
        """The staged file this process has open under a path."""
        return self._open.get(path)

    def sync(self, staged: StagedFile) -> None:
        """The bytes of an open staging file, and its name, survive power loss."""
        os.fsync(staged.descriptor)
        if not staged.placed:
            # POSIX promises the name of a new or moved file by nothing else.
            self._sync_names()
            staged.placed = True

    def sync_paths(self, paths: Iterable[str]) -> Sequence[str]:
        """`sync` of files that nobody here need have open; returns those that are there."""
        done = []
        for path in paths:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            done.append(path)
        if done:
            self._sync_names()
        return done

    def _sync_directory(self) -> None:
        if self._sync_names.count:
            sync_directory(self.directory)
        else:
            sync_directories(self.directory)

    def begins_with(self, staged: StagedFile, origin: str) -> None:
        """Note what a staged file's first bytes are: who carries that out tells it the version the store gave."""
        with self._lock:
            staged.origin = origin
            self._by_origin[origin] = staged

    def began_with(self, origin: str | None) -> StagedFile | None:
        """The staged file this process has open whose first bytes are these."""
        return None if origin is None else self._by_origin.get(origin)

    def release(self, staged: StagedFile) -> None:
        """Close a staged file; its path stays until it is sealed or removed."""
        staged.close()  # first: who does not find it open any more takes its lock
        with self._lock:
            self._open.pop(str(staged.path), None)
            if staged.origin is not None and self._by_origin.get(staged.origin) is staged:
                del self._by_origin[staged.origin]

    def remove(self, path: str | Path) -> None:
        """Delete a staging file that nobody is owed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def is_open(self, path: str | Path) -> bool:
        """Some process has a staging file open."""
        try:
            lock = self.lock_exclusive(path)
        except FileNotFoundError:
            return False
        if lock is not None:
            os.close(lock)
        return lock is None

    def remove_unless_open(self, path: str | Path) -> None:
        """Delete a staging file that nobody is owed; one that some process has open later, by `remove_left`."""
        try:
            lock = self.lock_exclusive(path)
        except FileNotFoundError:
            return
        if lock is None:
            self._left.add(str(path))
            return
        os.unlink(path)
        os.close(lock)

    def remove_left(self, uses: Callable[[str], bool]) -> None:
        """Delete what `remove_unless_open` had to leave and is not open any more; ``uses`` tells what is owed again."""
        for path in list(self._left):
            if uses(path) or not self.is_open(path):
                self._left.discard(path)
                if not uses(path):
                    self.remove_unless_open(path)

    def snapshot(self, path: Path, target: Path | None = None) -> Path:
        """A frozen copy of a staging or cache file (a reflink where there are such); nothing stays of one that fails."""
        target = target or self.name()
        with open(path, "rb") as source, open(target, "xb", opener=_private) as copy:
            try:
                remaining = os.fstat(source.fileno()).st_size
                while remaining and (done := os.copy_file_range(source.fileno(), copy.fileno(), remaining)):
                    remaining -= done
                if remaining:
                    raise Stale("it was cut short while it was copied", str(path))
            except BaseException:  # an interrupt leaves nothing either
                self.remove(target)
                raise
        return target

    def lock_exclusive(self, path: str | Path) -> int | None:
        """A descriptor with flock(LOCK_EX) if no process has the file open, else None; close it to unlock."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _register(self, staged: StagedFile) -> StagedFile:
        fcntl.flock(staged.descriptor, fcntl.LOCK_SH)
        with self._lock:
            self._open[str(staged.path)] = staged
        return staged


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
