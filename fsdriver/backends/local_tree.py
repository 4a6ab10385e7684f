"""The directory a local backend may touch, and nothing outside it.

Directories are opened first and then asked where they really are, so that a symbolic link that leads out of the root is
noticed even if it is put in place meanwhile; files are named relative to such a descriptor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from fsdriver.backends.local_attributes import (
    TEMPORARY,
    info_of,
    missing_root,
    read_metadata,
)
from fsdriver.backends.local_files import discard
from fsdriver.errors import AccessDenied, InvalidName, NotDirectory, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsdriver.backends.model import ObjectInfo

OUTSIDE: Final = "it leads outside the backend's root directory"


def real_path(descriptor: int, path: str) -> str:
    """Where an open file or directory really is."""
    if sys.platform == "linux":
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return os.path.realpath(path)


class LocalTree:
    """Keys (absolute paths without the leading ``/``) below one root directory; all methods block.

    Parameters
    ----------
    root : str
        Absolute path.

    Attributes
    ----------
    xattrs : bool
        The file system has extended attributes.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.normpath(root)
        self.xattrs = True
        self._real = ""

    def real_root(self) -> str:
        """The root without symbolic links.

        Raises
        ------
        ContainerMissing
        """
        if not os.path.isdir(self.root):
            raise missing_root(self.root)
        if not self._real:
            self._real = os.path.realpath(self.root)
        return self._real

    def inside(self, path: str) -> bool:
        """Whether a real path is the root or below it."""
        real = self._real.rstrip("/")
        return path == self._real or path.startswith(f"{real}/")

    def path_of(self, key: str) -> str:
        """The path a key stands for, not yet resolved.

        Raises
        ------
        InvalidName
            Not a name a file can have, or not below the root.
        """
        segments = key.removesuffix("/").split("/")
        if "\0" in key or any(one in {"", ".", ".."} for one in segments):
            raise InvalidName("keys of local files have no empty, '.' or '..' segments and no NUL", key)
        if any(one.startswith(TEMPORARY) for one in segments):
            raise InvalidName(f"names beginning with {TEMPORARY!r} are the backend's own", key)
        path = f"/{'/'.join(segments)}"
        if path != self.root and not path.startswith(f"{self.root.rstrip('/')}/"):
            raise InvalidName(f"the key is not below the backend's root {self.root}", key)
        return path

    # -- directories ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def directory(self, path: str, *, make: bool = False, lock: bool = False) -> Iterator[int]:
        """An open directory inside the root; closed (and unlocked) at the end.

        Parameters
        ----------
        make : bool
            Make it and its parents if they are missing.
        lock : bool
            Hold flock(LOCK_EX) on it: compare-and-rename is one step among all processes of this driver.

        Raises
        ------
        NotFound
            It is missing, or leads outside.
        NotDirectory
            Something else has the name.
        """
        self.real_root()
        descriptor = self._open(path, make)
        try:
            if lock:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, path: str, make: bool) -> int:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not make or path == self.root:
                raise NotFound("no such directory", path) from None
            parent = self._open(os.path.dirname(path), make=True)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(os.path.basename(path), dir_fd=parent)
            finally:
                os.close(parent)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            if make:
                raise NotDirectory("a part of this path is a file, not a directory", path) from None
            raise NotFound("no such directory", path) from None
        if not self.inside(real_path(descriptor, path)):
            os.close(descriptor)
            raise (AccessDenied if make else NotFound)(OUTSIDE, path)
        return descriptor

    # -- entries -------------------------------------------------------------------------------------------------------

    def open_file(self, key: str) -> int:
        """A descriptor of a regular file, following links that stay inside.

        Raises
        ------
        NotFound
            Missing, a directory or special file, or outside.
        """
        self.real_root()
        path = self.path_of(key)
        if key.endswith("/"):
            raise NotFound("a directory has no bytes", key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound("no such file", key) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not self.inside(real_path(descriptor, path)):
            os.close(descriptor)
            raise NotFound("no such file", key)
        return descriptor

    def describe(self, key: str) -> ObjectInfo:
        """Attributes of one key: a file, link or special file, or with a trailing ``/`` a directory.

        Raises
        ------
        NotFound
        """
        self.real_root()
        path = self.path_of(key)
        if key.endswith("/"):
            with self.directory(path) as descriptor:
                return info_of(key, os.fstat(descriptor), None, self._stored(descriptor))
        if path == self.root:
            raise NotFound("the root is a directory", key)
        try:
            with self.directory(os.path.dirname(path)) as parent:
                info = self.entry(key, os.path.basename(path), parent)
        except FileNotFoundError:
            raise NotFound("no such file", key) from None
        if info is None or info.key.endswith("/"):
            raise NotFound("no such file", key)
        return info

    def entry(self, key: str, name: str, parent: int) -> ObjectInfo | None:
        """Describe ``name`` in an open directory; a directory's key gets a ``/``. None: a link that leads outside."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return info_of(f"{key}/", status, None, {})
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=parent)
            # Lexical: the link is shown, never followed here.
            resolved = os.path.normpath(os.path.join(os.path.dirname(f"/{key}"), target))
            if resolved != self.root and not resolved.startswith(f"{self.root.rstrip('/')}/"):
                return None
            return info_of(key, status, target, {})
        stored = self._stored(f"/proc/self/fd/{parent}/{name}" if sys.platform == "linux" else f"/{key}")
        return info_of(key, status, None, stored)

    def _stored(self, where: int | str) -> dict[str, str]:
        return read_metadata(where, follow=isinstance(where, int)) if self.xattrs else {}

    # -- listings ------------------------------------------------------------------------------------------------------

    def names(self, path: str) -> list[tuple[str, bool]]:
        """Names in a directory and whether each is a directory, in key order; [] if it is missing."""
        try:
            with self.directory(path) as descriptor, os.scandir(descriptor) as entries:
                found = [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if not entry.name.startswith(TEMPORARY)
                ]
        except NotFound:
            return []
        return sorted(found, key=lambda one: f"{one[0]}/" if one[1] else one[0])

    def sweep(self, directory: int) -> None:
        """Remove unfinished files whose writer is gone (it holds a lock on them while it lives)."""
        for name in os.listdir(directory):
            if not name.startswith(TEMPORARY):
                continue
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    discard(name, directory)
                finally:
                    os.close(descriptor)
