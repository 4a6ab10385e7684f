"""Handing sealed cache files to processes of other users, who may read them through the mount but not enter the cache.

A socket that anyone may connect to answers one question (`fsdriver.cache.passing`) with an open file or with "not here": who
asks is not told which files there are, nor why it gets none. Nothing is fetched for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdriver import names
from fsdriver.cache import ObjectKey, passing
from fsdriver.config import offering_dir
from fsdriver.entry import Kind
from fsdriver.errors import FsdriverError, NotFound
from fsdriver.notify import socket_address
from fsdriver.runtime import on_loop

from .permissions import Caller, Guarded, above, caller_of, knows_all_ids, may_read

if TYPE_CHECKING:
    from fsdriver.cache import DiskCache, LocalFile
    from fsdriver.routes.route import Route
    from fsdriver.routes.tree import Tree

    from .filesystem import FileSystem

log = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds that a connection may last, whatever it waits for."""
MOST: Final = 256
MOST_OF_ONE: Final = 64
"""Connections at a time, of all users and of one; further ones are closed at once."""
BACKLOG: Final = 128
ACCEPT_PAUSE: Final = 0.1
"""Seconds until a connection is tried to be taken again that found no descriptor."""
SKELETON_MODE: Final = 0o755
"""Of the directories that only lead to routes."""


@dataclass(slots=True)
class Lent:
    """What became of the questions.

    Attributes
    ----------
    served : int
        Files handed over.
    refused : int
        Files that are here, but not for who asked, or not in that version any more.
    absent : int
        Files that are not in the cache, or not complete.
    dropped : int
        Connections without a question that could be understood, or too many at a time.
    """

    served: int = 0
    refused: int = 0
    absent: int = 0
    dropped: int = 0


class LendingServer:
    """See the module; runs on the event loop.

    Parameters
    ----------
    fs : FileSystem
    tree : Tree
    cache : DiskCache
    mountpoint : str
        Absolute.
    label : str
        Stands for the mountpoint in the names of the sockets.
    """

    def __init__(self, fs: FileSystem, tree: Tree, cache: DiskCache, mountpoint: str, label: str) -> None:
        self.counts = Lent()
        self._fs = fs
        self._tree = tree
        self._cache = cache
        self._mountpoint = mountpoint
        self._label = label
        self._paths: list[Path] = []
        self._inode = 0
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected: Counter[int] = Counter()

    def status(self) -> dict[str, Any]:
        """For ``status``."""
        return {"sockets": [str(path) for path in self._paths], **asdict(self.counts)}

    async def start(self, stores: Collection[str]) -> None:
        """Listen, under a name for each store.

        Raises
        ------
        OSError
            It cannot; ConfigError among them.
        """
        await on_loop()
        if not knows_all_ids():
            log.info("%s: cached files are not handed to other users: this is a user namespace", self._mountpoint)
            return
        directory = offering_dir()
        self._paths = [directory / passing.socket_name(self._label, store) for store in stores]
        for left in directory.glob(f"{self._label}-*"):
            left.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener = listener
        first, *others = self._paths
        with socket_address(first) as address:
            listener.bind(address)
        first.chmod(0o666)
        self._inode = first.stat().st_ino
        listener.listen(BACKLOG)
        for path in others:
            path.hardlink_to(first)
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    async def stop(self) -> None:
        """Listen no more; what is being answered is cut."""
        await on_loop()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == self._inode:  # not that of a daemon that came after this one
                    path.unlink()
        tasks = [task for task in (self._accepting, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    log.warning("a connection to %s was not accepted: %s", self._paths[0], error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            task = loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            uid, _ = passing.peer(connection)
            if len(self._tasks) > MOST or self._connected[uid] >= MOST_OF_ONE:
                self.counts.dropped += 1
                return
            self._connected[uid] += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._answer(connection)
            except (OSError, ValueError) as error:  # TimeoutError is an OSError
                self.counts.dropped += 1
                log.debug("a question of uid %d was dropped: %r", uid, error)
            finally:
                self._connected[uid] -= 1
                if not self._connected[uid]:
                    del self._connected[uid]

    async def _answer(self, connection: socket.socket) -> None:
        message = await asyncio.get_running_loop().sock_recv(connection, passing.LONGEST + 1)
        key = passing.parse(message)
        file, surroundings = await self._fs.on_disk(lambda: self._look(key))
        if file is None:
            self.counts.absent += 1
        elif not await self._allowed(connection, key, surroundings):
            self.counts.refused += 1
            file = None
        passing.send(connection, file)
        if file is not None:
            self.counts.served += 1
            self._cache.used(key)

    def _look(self, key: ObjectKey) -> tuple[LocalFile | None, list[Guarded] | None]:
        """The file, and the directories above the mountpoint; None if these cannot be judged."""
        file = self._cache.apart(key)
        if file is not None:
            with contextlib.suppress(OSError):
                return file, above(self._mountpoint)
        return file, None

    async def _allowed(self, connection: socket.socket, key: ObjectKey, surroundings: list[Guarded] | None) -> bool:
        """Whether the caller may read this very version under one of its names in the mount."""
        if surroundings is None:
            return False
        try:
            caller = caller_of(connection)
        except OSError as error:
            log.debug("who asks for %s cannot be told: %s", key.label, error)
            return False
        for route in self._tree.routes:
            if route.backend.identity == key.store and key.key.startswith(route.root_key):
                path = names.to_name(key.key.removeprefix(route.root_key))
                if path and await self._allowed_as(caller, route, path, key, surroundings):
                    return True
        return False

    async def _allowed_as(
        self, caller: Caller, route: Route, path: str, key: ObjectKey, surroundings: list[Guarded]
    ) -> bool:
        whole = f"{route.path.rstrip('/')}/{path}"
        if self._tree.resolve(whole) != (route, path):
            return False  # another route hides it
        try:
            entry = await route.stat(path)
            # A version that is not the present one is another file, with permissions that nobody knows any more.
            if entry.kind is not Kind.FILE or route.content_key(path, entry) != key:
                return False
            file = Guarded(entry.mode, entry.uid, entry.gid)
            inside = await asyncio.gather(*(self._directory(str(one)) for one in Path(whole).parents))
        except FsdriverError as error:
            log.debug("%s is not handed over: %s", whole, error)
            return False
        return may_read(caller, file, [*inside, *surroundings])

    async def _directory(self, path: str) -> Guarded:
        """A directory of the tree as the mount shows it. Raises FsdriverError."""
        try:
            route, inside = self._tree.resolve(path)
            entry = await route.stat(inside)
        except NotFound:
            if not self._tree.children(path):
                raise
            return Guarded(SKELETON_MODE, os.getuid(), os.getgid())
        if entry.kind is not Kind.DIRECTORY:
            raise NotFound("is no directory", path)
        return Guarded(entry.mode, entry.uid, entry.gid)
