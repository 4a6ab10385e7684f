"""The kernel's view of names: nodeids, where each hangs, and how often the kernel looked it up.

A node keeps no attributes of its own except while it is open or unlinked: they come from the route. Its nodeid is a counter
that is never used twice; a *foreign* change of content gives the name a new one, so that pages the kernel keeps for a nodeid
are always right. All names of a hard-linked file share one node.

Everything here is in memory and quick; `NodeTable.lock` guards it, held for single calls only.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdriver.entry import Entry, Kind

from .gate import Gate
from .protocol import ROOT_ID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsdriver.routes.route import Route

    from .openstate import OpenState


_making_gates = threading.Lock()


@dataclass(slots=True)
class Branch:
    """One directory of the skeleton of the tree: where routes hang, and the synthetic directories above them."""

    name: str
    route: Route | None = None
    children: dict[str, Branch] = field(default_factory=dict)


def build_skeleton(routes: Sequence[Route]) -> Branch:
    """The skeleton of a tree: its root has the route ``/`` if there is one."""
    root = Branch("")
    for route in routes:
        branch = root
        for name in filter(None, route.path.split("/")):
            branch = branch.children.setdefault(name, Branch(name))
        branch.route = route
    return root


class Node:
    """What one nodeid stands for.

    Attributes
    ----------
    nodeid : int
    kind : Kind
    route : Route or None
        None for synthetic directories and files.
    names : list of (Node, str)
        Every known (parent, name); empty once unlinked. More than one for hard links.
    far : str or None
        Route path of a further hard link whose directory the kernel does not know; used when `names` is empty.
    branch : Branch or None
        Set on directories of the skeleton.
    ino : int
        ``st_ino``; nodes of hard-linked files are found by it.
    content : str or None
        What the bytes are: a version, or the path of the staging file that holds them; None for what has no content.
    lookups : int
        References the kernel holds.
    children : dict or None
        Known names below a directory.
    entry : Entry or None
        Attributes, kept only while the node is open or unlinked.
    opened : OpenState or None
        Set from the first open to the last release.
    pages_valid : bool
        The pages the kernel may keep are those of the present bytes.
    readers : int
        Open handles of a directory.
    listed : object
        Generation of the listing that the kernel may keep of a directory.
    synthetic : object
        What a part of ``.fsdriver`` stands for (`fuse_mount.synthetic`), else None.
    """

    __slots__ = (
        "_gate", "branch", "children", "content", "entry", "far", "ino", "kind", "listed", "lookups", "names", "nodeid",
        "opened", "pages_valid", "readers", "route", "synthetic",
    )  # fmt: skip

    def __init__(self, nodeid: int, kind: Kind, route: Route | None, ino: int) -> None:
        self.nodeid = nodeid
        self.kind = kind
        self.route = route
        self.ino = ino
        self.names: list[tuple[Node, str]] = []
        self.far: str | None = None
        self.branch: Branch | None = None
        self.content: str | None = None
        self.lookups = 0
        self.children: dict[str, Node] | None = {} if kind is Kind.DIRECTORY else None
        self.entry: Entry | None = None
        self.opened: OpenState | None = None
        self.pages_valid = False
        self.synthetic: object = None
        self.readers = 0
        self.listed: object = None
        self._gate: Gate | None = None

    @property
    def gate(self) -> Gate:
        """Held by whoever changes what is open; made when first needed, for most nodes never."""
        gate = self._gate
        if gate is None:
            with _making_gates:
                gate = self._gate
                if gate is None:
                    gate = self._gate = Gate()
        return gate

    @property
    def detached(self) -> bool:
        """No name leads here any more."""
        return not self.names and self.far is None and self.nodeid != ROOT_ID

    def path(self) -> str | None:
        """The route path, computed by walking up; None once unlinked."""
        if self.branch is not None and self.branch.route is self.route and self.route is not None:
            return ""
        parts: list[str] = []
        node = self
        while True:
            if not node.names:
                if node.far is None:
                    return None
                parts.append(node.far)
                break
            parent, name = node.names[0]
            parts.append(name)
            if parent.branch is not None and parent.branch.route is parent.route:
                break
            node = parent
        parts.reverse()
        return "/".join(parts)

    def child_path(self, name: str) -> str | None:
        """Route path of a name in this directory."""
        path = self.path()
        return None if path is None else f"{path}/{name}" if path else name


def content_of(route: Route | None, entry: Entry) -> str | None:
    """Identity of a file's bytes (see `Node.content`)."""
    return None if route is None else route.content(entry)


class NodeTable:
    """All nodes the kernel knows, by nodeid.

    Parameters
    ----------
    skeleton : Branch
        Where the routes hang.
    """

    def __init__(self, skeleton: Branch) -> None:
        self.lock = threading.RLock()
        self._counter = itertools.count(ROOT_ID + 1)
        self.root = Node(ROOT_ID, Kind.DIRECTORY, skeleton.route, ROOT_ID)
        self.root.branch = skeleton
        self.root.lookups = 1
        self._nodes: dict[int, Node] = {ROOT_ID: self.root}
        self._linked: dict[tuple[int, int], Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, nodeid: int) -> Node:
        """The node of a request; the kernel names only nodes it holds. Raises KeyError."""
        return self._nodes[nodeid]

    def nodes(self) -> list[Node]:
        """A snapshot of all nodes."""
        with self.lock:
            return list(self._nodes.values())

    # -- looking up --------------------------------------------------------------------------------------------------

    def new(self, kind: Kind, route: Route | None, ino: int) -> Node:
        """A node without a name, e.g. for O_TMPFILE; the caller's reply gives the kernel its first reference."""
        with self.lock:
            node = Node(next(self._counter), kind, route, ino)
            node.lookups = 1
            self._nodes[node.nodeid] = node
            return node

    def lookup(self, parent: Node, name: str, entry: Entry) -> Node:
        """The node of a name, with one more kernel reference; a new one if the name now stands for something else."""
        with self.lock:
            children = _children(parent)
            node = children.get(name)
            if node is not None and not self._same(node, entry):
                self._replace(parent, name, node)
                node = None
            if node is None:
                node = self._place(parent, name, entry)
            elif node.content is None:
                node.content = content_of(node.route, entry)
            node.lookups += 1
            return node

    def lookup_many(self, parent: Node, found: Sequence[tuple[str, Entry | None]]) -> list[Node | None]:
        """`lookup` of many names of one directory, None for those without an entry."""
        with self.lock:
            return [None if entry is None else self.lookup(parent, name, entry) for name, entry in found]

    def lookup_branch(self, parent: Node, branch: Branch) -> Node:
        """The node of a skeleton directory, with one more kernel reference."""
        with self.lock:
            children = _children(parent)
            node = children.get(branch.name)
            if node is None or node.branch is not branch:
                node = Node(next(self._counter), Kind.DIRECTORY, branch.route or parent.route, 0)
                node.branch = branch
                node.ino = node.nodeid
                node.names.append((parent, branch.name))
                children[branch.name] = node
                self._nodes[node.nodeid] = node
            node.lookups += 1
            return node

    def find(self, route: Route, path: str) -> Node | None:
        """The node of a route path, if the kernel knows it."""
        with self.lock:
            node: Node | None = self._route_root(route)
            for name in filter(None, path.split("/")):
                if node is None or node.children is None:
                    return None
                node = node.children.get(name)
            return node

    def changed(self, node: Node, entry: Entry) -> bool:
        """``entry`` says that the name no longer stands for the bytes of ``node``: a foreign change."""
        return not self._same(node, entry)

    # -- changes by the kernel ---------------------------------------------------------------------------------------

    def link(self, node: Node, parent: Node, name: str) -> None:
        """A further name for a node; the reply counts as a lookup."""
        with self.lock:
            children = _children(parent)
            if (old := children.get(name)) is not None and old is not node:
                self._replace(parent, name, old)
            children[name] = node
            if (parent, name) not in node.names:
                node.names.append((parent, name))
            node.lookups += 1
            if node.route is not None:
                self._linked[id(node.route), node.ino] = node

    def unlink(self, parent: Node, name: str, links: Sequence[str] = ()) -> Node | None:
        """Forget a name; ``links`` are the other names of a hard-linked file as the route knows them."""
        with self.lock:
            node = _children(parent).get(name)
            if node is not None:
                self._replace(parent, name, node)
                if not node.names and links:
                    node.far = links[0]
            return node

    def rename(self, source: Node, name: str, target: Node, new_name: str, *, exchange: bool) -> Node | None:
        """Move a name. Returns the node that ``new_name`` led to before (exchanged or replaced)."""
        with self.lock:
            moving = _children(source).pop(name, None)
            replaced = _children(target).pop(new_name, None)
            if moving is not None:
                _rehang(moving, (source, name), (target, new_name))
            if replaced is not None and replaced is not moving:
                if exchange:
                    _rehang(replaced, (target, new_name), (source, name))
                else:
                    _unhang(replaced, (target, new_name))
                    self._drop_if_unused(replaced)
            self._drop_if_unused(source)
            return replaced

    # -- forgetting --------------------------------------------------------------------------------------------------

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel dropped ``count`` references."""
        with self.lock:
            node = self._nodes.get(nodeid)
            if node is not None and nodeid != ROOT_ID:
                node.lookups -= count
                self._drop_if_unused(node)

    def settle(self, node: Node) -> None:
        """Drop a node that was only kept because it was open."""
        with self.lock:
            self._drop_if_unused(node)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _same(self, node: Node, entry: Entry) -> bool:
        if node.synthetic is not None or node.branch is not None or node.kind is not entry.kind:
            return node.kind is entry.kind
        if node.kind is not Kind.FILE:
            return node.ino == entry.ino or node.kind is Kind.DIRECTORY
        if len(node.names) > 1 and node.ino != entry.ino:
            return False  # another process gave one name of a hard-linked file a file of its own
        content = content_of(node.route, entry)
        opened = node.opened
        if opened is not None and opened.staged is not None:
            if opened.writers:
                return True  # who writes here learns of a foreign change at its commit
            if opened.staged.written and node.route is not None:
                return content is None or content == node.route.staged_content(entry, opened.staged)
        return node.content == content or node.content is None or content is None

    def _place(self, parent: Node, name: str, entry: Entry) -> Node:
        if (
            entry.links
            and (known := self._linked.get((id(parent.route), entry.ino))) is not None
            and self._same(known, entry)
        ):
            node = known
        else:
            node = Node(next(self._counter), entry.kind, parent.route, entry.ino)
            node.content = content_of(parent.route, entry)
            self._nodes[node.nodeid] = node
            if entry.links:
                self._linked[id(parent.route), entry.ino] = node
        node.names.append((parent, name))
        node.far = None
        _children(parent)[name] = node
        return node

    def _replace(self, parent: Node, name: str, node: Node) -> None:
        _children(parent).pop(name, None)
        _unhang(node, (parent, name))
        self._drop_if_unused(node)

    def _drop_if_unused(self, node: Node) -> None:
        if node.lookups > 0 or node.children or node.opened is not None or node.nodeid not in self._nodes:
            return
        del self._nodes[node.nodeid]
        key = (id(node.route), node.ino)
        if self._linked.get(key) is node:
            del self._linked[key]
        for parent, name in node.names:
            if parent.children is not None and parent.children.get(name) is node:
                del parent.children[name]
                self._drop_if_unused(parent)

    def _route_root(self, route: Route) -> Node | None:
        node: Node | None = self.root
        for name in filter(None, route.path.split("/")):
            node = None if node is None or node.children is None else node.children.get(name)
        return node


def _children(parent: Node) -> dict[str, Node]:
    if parent.children is None:
        raise NotADirectoryError(20, "not a directory")
    return parent.children


def _unhang(node: Node, name: tuple[Node, str]) -> None:
    if name in node.names:
        node.names.remove(name)


def _rehang(node: Node, old: tuple[Node, str], new: tuple[Node, str]) -> None:
    """The first name stays first: commits of open files go there."""
    if old in node.names:
        node.names[node.names.index(old)] = new
    else:
        node.names.append(new)
    _children(new[0])[new[1]] = node


def descend(node: Node) -> Iterator[Node]:
    """A node and everything known below it."""
    yield node
    for child in list((node.children or {}).values()):
        yield from descend(child)
