"""What all operations of one mount share, and how attributes become replies."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from fsdriver.entry import TYPE_BITS, Entry, Kind
from fsdriver.errors import BackendError, NotFound, ReadOnly, Stale
from fsdriver.runtime import on_loop

from .handles import Handles
from .inodes import Branch, Node, NodeTable, build_skeleton
from .openfile import OpenFiles
from .protocol import ATTR, ATTR_HEAD, ENTRY_HEAD, SECOND, split_time
from .rereading import Rereading
from .synthetic import Probe, SyntheticDirectory, SyntheticFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsdriver.routes.route import Route

    from .passthrough import Passthrough
    from .transport import Expired

T = TypeVar("T")

BLOCK_SIZE: Final = 4096
LONGEST_TTL: Final = float(1 << 31)
FOREVER: Final = (1 << 31, 0)


class FileSystem:
    """One mounted tree.

    Parameters
    ----------
    routes : sequence of Route
    passthrough : Passthrough
    synthetic : SyntheticDirectory
        ``.fsdriver``.
    """

    def __init__(self, routes: Sequence[Route], passthrough: Passthrough, synthetic: SyntheticDirectory) -> None:
        self.routes = list(routes)
        self.passthrough = passthrough
        self.synthetic = synthetic
        self.probe: Probe | None = None
        self.table = NodeTable(build_skeleton(self.routes))
        self.open_files = OpenFiles(self.table, passthrough)
        self.handles = Handles()
        self.rereading = Rereading(self.handles)
        self.expire: Callable[[Iterable[Expired]], object] = lambda _: None
        self.disk = ThreadPoolExecutor(4, thread_name_prefix="fuse-disk")
        self.born_ns = time.time_ns()
        self.uid, self.gid = os.getuid(), os.getgid()
        self._ttls: dict[Route, tuple[tuple[int, int], tuple[int, int]]] = {
            route: (_ttl(route.policy.ttl), _ttl(route.policy.negative_ttl)) for route in self.routes
        }

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Run something that waits for the local disk in a worker."""
        await on_loop()
        return await asyncio.get_running_loop().run_in_executor(self.disk, work)

    # -- attributes --------------------------------------------------------------------------------------------------

    def known_entry(self, node: Node) -> Entry | None:
        """Attributes that need no waiting, or None."""
        found = self.known_for(node)
        return None if found is None else found[0]

    def known_for(self, node: Node) -> tuple[Entry, float | None] | None:
        """As `known_entry`, with the seconds for which they may still be trusted (None: as of now)."""
        if node.route is None:
            return self._synthetic_entry(node), None
        path = node.path()
        if path is None:
            entry = replace_links(node.entry)
            return None if entry is None else (entry, None)
        found = node.route.cached_for(path)
        if found is None or node.kind is Kind.DIRECTORY or not self.table.changed(node, found[0]):
            return found
        return self._changed(node, path), None

    async def entry(self, node: Node) -> Entry:
        """Attributes of a node.

        Raises
        ------
        NotFound
        Stale
            The name stands for other bytes now, and nobody has the old ones open.
        """
        entry = self.known_entry(node)
        if entry is not None:
            return entry
        path = node.path()
        if path is None or node.route is None:
            raise Stale("it was removed")
        try:
            entry = await node.route.stat(path)
        except BackendError as error:
            # What is known of the root will do: the way to ``.fsdriver``, which tells what is wrong, leads through it.
            known = node.route.memory.at(path).own if node is self.table.root and error.temporary else None
            if known is None:
                raise
            return known
        except NotFound:
            if node.branch is not None and node.branch.route is None:
                return self._synthetic_entry(node)
            if node.opened is None or node.entry is None:
                raise
            # Removed by another process; who has it open here keeps it.
            for parent, name in list(node.names):
                self.table.unlink(parent, name)
            return node.entry
        if node.kind is not Kind.DIRECTORY and self.table.changed(node, entry):
            return self._changed(node, path)
        return entry

    def _changed(self, node: Node, path: str) -> Entry:
        if node.opened is not None and node.entry is not None:
            return node.entry
        raise Stale("it was replaced by a foreign writer", path)

    def _synthetic_entry(self, node: Node) -> Entry:
        what = node.synthetic
        if isinstance(what, SyntheticDirectory):
            return what.directory_entry(self.uid, self.gid)
        if isinstance(what, SyntheticFile):
            return self.synthetic.file_entry(what, self.uid, self.gid)
        if isinstance(what, Probe):
            size = os.fstat(what.descriptor).st_size
            return replace(
                self.synthetic.file_entry(SyntheticFile(bytes, what.ino), self.uid, self.gid), size=size, mode=0o600
            )
        now = self.born_ns
        return Entry(
            Kind.DIRECTORY, mode=0o755, uid=self.uid, gid=self.gid, atime_ns=now, mtime_ns=now, ctime_ns=now, ino=node.ino
        )  # fmt: skip

    def route_of(self, node: Node) -> Route:
        """The route of a directory that is about to change. Raises ReadOnly for synthetic ones."""
        if node.route is None:
            raise ReadOnly("this directory only holds routes; nothing can be made or removed here")
        return node.route

    def child_path(self, parent: Node, name: str) -> tuple[Route, str]:
        """Route and path of a name in a directory. Raises NotFound where the directory was removed."""
        route, path = self.route_of(parent), parent.child_path(name)
        if path is None:
            raise NotFound("the directory was removed", name)
        return route, path

    # -- replies -----------------------------------------------------------------------------------------------------

    def pack_attributes(self, node: Node, entry: Entry) -> bytes:
        """``struct fuse_attr``; size, blocks and times of a file being written are those of its staging file."""
        size, mtime, ctime = entry.size, entry.mtime_ns, entry.ctime_ns
        blocks = (size + 511) >> 9
        state = node.opened
        staged = state.staged if state is not None else None
        if state is not None and staged is not None and (status := staged.status()) is not None:
            size, blocks = status.st_size, status.st_blocks
            if state.untouched != (size, status.st_mtime_ns):
                mtime, ctime = status.st_mtime_ns, max(status.st_ctime_ns, ctime)
        atime_s, atime_ns = divmod(entry.atime_ns, SECOND)
        mtime_s, mtime_ns = divmod(mtime, SECOND)
        ctime_s, ctime_ns = divmod(ctime, SECOND)
        ino = node.ino if node.branch is not None else entry.ino
        return ATTR.pack(
            ino, size, blocks, atime_s & _U64, mtime_s & _U64, ctime_s & _U64, atime_ns, mtime_ns, ctime_ns, entry.st_mode,
            self._links(node, entry), entry.uid, entry.gid, entry.rdev, BLOCK_SIZE, 0,
        )  # fmt: skip

    def _links(self, node: Node, entry: Entry) -> int:
        """st_nlink: a directory counts the ``..`` of those in it, as far as its listing is remembered."""
        if node.detached:
            return 0
        if entry.kind is not Kind.DIRECTORY:
            return entry.nlink
        inside = len(node.branch.children) if node.branch is not None else 0
        if node.route is not None and (path := node.path()) is not None:
            inside += node.route.memory.subdirectories(path) or 0
        return entry.nlink + inside

    def attr_reply(self, node: Node, entry: Entry, left: float | None = None) -> bytes:
        """``struct fuse_attr_out``; ``left`` are the seconds it may be trusted, None: the time to live of the route."""
        seconds, nanoseconds = self._ttl_of(node.route, 0) if left is None else _ttl(left)
        return ATTR_HEAD.pack(seconds, nanoseconds, 0) + self.pack_attributes(node, entry)

    def entry_reply(self, node: Node, entry: Entry, left: float | None = None) -> bytes:
        """``struct fuse_entry_out``; the node must have been looked up. ``left`` as of `attr_reply`.

        All names of a hard-linked file show the attributes of the one its node hangs by, as fstat(2) does.
        """
        if len(node.names) > 1 and node.route is not None:
            entry = node.route.cached(node.path() or "") or entry
        seconds, nanoseconds = self._ttl_of(node.route, 0) if left is None else _ttl(left)
        head = ENTRY_HEAD.pack(node.nodeid, 0, seconds, seconds, nanoseconds, nanoseconds)
        return head + self.pack_attributes(node, entry)

    def plain_attributes(self, entry: Entry) -> tuple[int, ...]:
        """Fields of ``struct fuse_attr`` of what is no directory, is not open and has one name."""
        mtime_s, mtime_ns = divmod(entry.mtime_ns, SECOND)
        atime_s, atime_ns = (mtime_s, mtime_ns) if entry.atime_ns == entry.mtime_ns else divmod(entry.atime_ns, SECOND)
        ctime_s, ctime_ns = (mtime_s, mtime_ns) if entry.ctime_ns == entry.mtime_ns else divmod(entry.ctime_ns, SECOND)
        size = entry.size
        return (
            entry.ino, size, (size + 511) >> 9, atime_s & _U64, mtime_s & _U64, ctime_s & _U64, atime_ns, mtime_ns,
            ctime_ns, TYPE_BITS[entry.kind] | entry.mode, 1, entry.uid, entry.gid, entry.rdev,
            BLOCK_SIZE, 0,
        )  # fmt: skip

    def lifetime(self, left: float) -> tuple[int, int]:
        """Seconds and nanoseconds for which something may be trusted, as replies say it."""
        return _ttl(left)

    def negative_reply(self, route: Route) -> bytes:
        """An entry with nodeid 0: the kernel may remember for ``negative_ttl`` that there is none. Empty: it may not."""
        seconds, nanoseconds = self._ttl_of(route, 1)
        if not seconds and not nanoseconds:
            raise NotFound("no such file or directory")
        return ENTRY_HEAD.pack(0, 0, seconds, 0, nanoseconds, 0) + bytes(ATTR.size)

    def _ttl_of(self, route: Route | None, which: int) -> tuple[int, int]:
        return (0, 0) if route is None else self._ttls[route][which]

    # -- looking up --------------------------------------------------------------------------------------------------

    def special(self, parent: Node, name: str) -> tuple[Node, Entry | None] | None:
        """A skeleton directory or part of ``.fsdriver``, looked up; None for ordinary names. The entry may need asking."""
        if parent.branch is not None:
            branch = parent.branch.children.get(name)
            if branch is not None:
                return self._look_up_branch(parent, branch)
            if parent is self.table.root and name == ".fsdriver":
                node = self._look_up_synthetic(parent, name, Kind.DIRECTORY, self.synthetic, self.synthetic.ino)
                return node, self._synthetic_entry(node)
        if parent.synthetic is self.synthetic:
            what: SyntheticFile | Probe | None = self.synthetic.files.get(name)
            if self.probe is not None and name == ".probe":
                what = self.probe
            if what is None:
                raise NotFound("no such file or directory", name)
            node = self._look_up_synthetic(parent, name, Kind.FILE, what, what.ino)
            return node, self._synthetic_entry(node)
        if parent.route is None:
            raise NotFound("no such file or directory", name)
        return None

    def _look_up_branch(self, parent: Node, branch: Branch) -> tuple[Node, Entry | None]:
        node = self.table.lookup_branch(parent, branch)
        return node, self.known_entry(node)

    def _look_up_synthetic(self, parent: Node, name: str, kind: Kind, what: object, ino: int) -> Node:
        with self.table.lock:
            node = (parent.children or {}).get(name)
            if node is None or node.synthetic is not what:
                node = self.table.new(kind, None, ino)
                node.synthetic = what
                self.table.link(node, parent, name)
                node.lookups -= 1
            else:
                node.lookups += 1
            return node


_U64: Final = (1 << 64) - 1


def _ttl(seconds: float) -> tuple[int, int]:
    return FOREVER if seconds >= LONGEST_TTL else split_time(max(seconds, 0.0))


def replace_links(entry: Entry | None) -> Entry | None:
    """The attributes of an unlinked file name no links."""
    return entry if entry is None or not entry.links else replace(entry, links=())
