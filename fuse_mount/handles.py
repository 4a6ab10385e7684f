"""Open files and directories, by the number the kernel knows them by."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdriver.entry import Entry

    from .inodes import Node


class FileHandle:
    """One open file description.

    Attributes
    ----------
    node : Node
    writable : bool
    commits : bool
        Its FLUSH commits what the node has staged.
    data : bytes or None
        Content of a synthetic file, fixed when it was opened.
    """

    __slots__ = ("commits", "data", "node", "writable")

    def __init__(self, node: Node, *, writable: bool = False, commits: bool = False, data: bytes | None = None) -> None:
        self.node = node
        self.writable = writable
        self.commits = commits
        self.data = data


class DirectoryHandle:
    """One open directory.

    Attributes
    ----------
    node : Node
    kept : bool
        The kernel keeps what is read through it.
    until : float
        Monotonic time until which it may.
    entries : list or None
        The snapshot that cookies count in, taken when reading begins.
    """

    __slots__ = ("entries", "kept", "node", "until")

    def __init__(self, node: Node, *, kept: bool = False) -> None:
        self.node = node
        self.kept = kept
        self.until = 0.0
        self.entries: list[tuple[str, Entry | None]] | None = None


class Handles:
    """Handles of one mount; numbers are never used twice."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.files: dict[int, FileHandle] = {}
        self.directories: dict[int, DirectoryHandle] = {}

    def add_file(self, handle: FileHandle) -> int:
        """The number of a new open file."""
        number = next(self._numbers)
        self.files[number] = handle
        return number

    def add_directory(self, handle: DirectoryHandle) -> int:
        """The number of a new open directory."""
        number = next(self._numbers)
        self.directories[number] = handle
        return number
