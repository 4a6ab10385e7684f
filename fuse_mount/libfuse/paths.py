"""Nodes by path, for a caller that knows files by nothing else; and files that have lost their name but are still open."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fsdriver.entry import Kind
from fsdriver.errors import NotFound
from fsdriver.fuse_mount.protocol import ENTRY_HEAD, ROOT_ID, Opcode

if TYPE_CHECKING:
    from fsdriver.fuse_mount.inodes import NodeTable

    from .calls import Body, Calls

HIDDEN: Final = re.compile(r"\.fuse_hidden[0-9a-f]{16}\Z")
"""What libfuse renames a file to that is removed or replaced while it is open (``hidden_name`` in its lib/fuse.c)."""
REMEMBERED: Final = 1024
"""Directories whose nodes are kept at hand."""


class Paths:
    """Looks paths up in the node table.

    Parameters
    ----------
    table : NodeTable
    calls : Calls
    """

    def __init__(self, table: NodeTable, calls: Calls) -> None:
        self._table = table
        self._calls = calls
        self._lock = threading.Lock()
        self._directories: OrderedDict[str, int] = OrderedDict()
        self._hidden: dict[str, int] = {}

    @contextmanager
    def node(self, path: str) -> Iterator[int]:
        """The nodeid of a path, valid inside the block. Raises OSError where there is none."""
        with self.entry(path) as (nodeid, _):
            yield nodeid

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        """The nodeid of the directory that holds a path, and the last name as requests carry it."""
        directory, _, name = path.rpartition("/")
        if not name:
            raise OSError(errno.EBUSY, "the root of the mount stays where it is", path)
        taken: list[int] = []
        try:
            yield self._directory(directory, taken), packed(name)
        finally:
            self._give_back(taken)

    @contextmanager
    def entry(self, path: str) -> Iterator[tuple[int, Body | None]]:
        """The nodeid of a path, valid inside the block, and the reply of LOOKUP; None where there was nothing to look up."""
        taken: list[int] = []
        try:
            directory, _, name = path.rpartition("/")
            if path in self._hidden:
                yield self._hidden[path], None
            elif not name:
                yield ROOT_ID, None
            else:
                yield self._step(self._directory(directory, taken), name, taken)
        finally:
            self._give_back(taken)

    def _directory(self, path: str, taken: list[int]) -> int:
        """The node of a directory; references go to ``taken``."""
        names: list[str] = []
        known = path
        while known and (found := self._recall(known)) is None:
            known, _, name = known.rpartition("/")
            names.append(name)
        if not known:
            nodeid = ROOT_ID
        else:
            assert found is not None
            nodeid = found
            taken.append(nodeid)
        for name in reversed(names):
            nodeid, _ = self._step(nodeid, name, taken)
            known = f"{known}/{name}"
            self._remember(known, nodeid)
        return nodeid

    def _step(self, parent: int, name: str, taken: list[int]) -> tuple[int, Body]:
        reply = self._calls(Opcode.LOOKUP, parent, packed(name))
        (nodeid, *_) = ENTRY_HEAD.unpack_from(reply)
        if not nodeid:
            raise NotFound("no such file or directory", name)
        taken.append(nodeid)
        return nodeid, reply

    # -- references --------------------------------------------------------------------------------------------------

    def hold(self, nodeid: int) -> None:
        """Take one reference more, to give back with `forget`."""
        with self._table.lock:
            self._table[nodeid].lookups += 1

    def forget(self, nodeid: int) -> None:
        """Give one reference back."""
        self._table.forget(nodeid, 1)

    def _give_back(self, taken: list[int]) -> None:
        for nodeid in taken:
            self.forget(nodeid)

    # -- directories at hand -----------------------------------------------------------------------------------------

    def _recall(self, path: str) -> int | None:
        """A remembered directory, with a reference."""
        with self._lock:
            nodeid = self._directories.get(path)
            if nodeid is None:
                return None
            if self._table[nodeid].detached:
                # A foreign writer made something else of it meanwhile.
                del self._directories[path]
                self.forget(nodeid)
                return None
            self._directories.move_to_end(path)
            self.hold(nodeid)
            return nodeid

    def _remember(self, path: str, nodeid: int) -> None:
        if self._table[nodeid].kind is not Kind.DIRECTORY:
            return
        with self._lock:
            if path in self._directories:
                return
            self.hold(nodeid)
            self._directories[path] = nodeid
            if len(self._directories) > REMEMBERED:
                self.forget(self._directories.popitem(last=False)[1])

    def gone(self, path: str) -> None:
        """What was at or below a path is not there any more."""
        with self._lock:
            for known in [one for one in self._directories if one == path or one.startswith(f"{path}/")]:
                self.forget(self._directories.pop(known))

    # -- files without a name ----------------------------------------------------------------------------------------

    def hide(self, path: str, hidden: str) -> bool:
        """Remove a name whose file is open; the file goes by ``hidden`` from now on, a name that is nowhere listed.

        Returns
        -------
        bool
            False, and nothing happened, if the file is not open: then somebody wants it called so.
        """
        with self.node(path) as nodeid, self.parent(path) as (parent, name):
            if self._table[nodeid].opened is None:
                return False
            self._calls(Opcode.UNLINK, parent, name)
            self.hold(nodeid)  # until libfuse removes the hidden name
            self._hidden[hidden] = nodeid
        return True

    def reveal(self, path: str) -> bool:
        """Libfuse removes a hidden name after the last close. Returns False if it is an ordinary one."""
        nodeid = self._hidden.pop(path, None)
        if nodeid is None:
            return False
        self.forget(nodeid)
        return True

    def moved(self, old: str, new: str, *, exchange: bool = False) -> None:
        """A name was renamed: what is known below a directory goes along."""
        self.gone(old)
        self.gone(new)
        moving = self._below(old, new)
        if exchange:
            moving |= self._below(new, old)
        found = {path: self._hidden.pop(was) for was, path in moving.items()}
        self._hidden.update(found)

    def _below(self, old: str, new: str) -> dict[str, str]:
        return {path: new + path[len(old) :] for path in list(self._hidden) if path.startswith(f"{old}/")}


def packed(name: str) -> bytes:
    """A name as requests carry it."""
    return os.fsencode(name) + b"\0"
