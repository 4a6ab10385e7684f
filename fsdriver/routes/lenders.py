"""Files that the daemon of root has cached, read here without fetching or keeping them again.

A mount with ``allow_other`` answers one question of other users (`fsdriver.cache.passing`): whether it has this version of
this object, complete, and may the asking user read it there. It hands over the open file, or does not. Nothing is trusted
that the kernel does not say to be of root, or of this user.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from fsdriver.cache import LentFile, ObjectKey, passing
from fsdriver.notify import socket_address
from fsdriver.runtime import on_loop

log = logging.getLogger(__name__)

PATIENCE: Final = 0.2
"""Seconds within which a daemon hands a file over, or it is fetched."""
LISTED_FOR: Final = 10.0
"""Seconds until it is looked again which daemons there are."""
QUESTIONS: Final = 4
"""Asked at a time by one process: daemons answer so many of one user only."""


class Lenders:
    """See the module.

    Parameters
    ----------
    directories : sequence of Path
        Where such daemons listen (`fsdriver.config.offered_dirs`).
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, directories: Sequence[Path], clock: Callable[[], float] = time.monotonic) -> None:
        self._directories = directories
        self._clock = clock
        self._until = 0.0 if directories else float("inf")
        self._sockets: Mapping[str, Sequence[Path]] = {}
        self._left_out: frozenset[Path] = frozenset()
        self._asking: asyncio.Semaphore | None = None

    def offering(self, store: str) -> Sequence[Path]:
        """Sockets of the daemons that have a store mounted, as of some seconds ago."""
        if self._clock() >= self._until:
            self._list()
        if not self._sockets:
            return ()
        return [path for path in self._sockets.get(passing.label(store), ()) if path not in self._left_out]

    async def borrow(self, key: ObjectKey) -> LentFile | None:
        """An open file with the bytes of an object, or None; never fails."""
        if not self.offering(key.store):
            return None
        await on_loop()
        if self._asking is None:
            self._asking = asyncio.Semaphore(QUESTIONS)
        async with self._asking:
            # Those that hung for somebody else meanwhile are not asked.
            for path in self.offering(key.store):
                try:
                    async with asyncio.timeout(PATIENCE):
                        file = await _ask(path, key)
                except OSError as error:  # TimeoutError is one
                    log.debug("%s is not asked for a while: %r", path, error)
                    self._left_out |= {path}
                else:
                    if file is not None:
                        return file
        return None

    def _list(self) -> None:
        self._until = self._clock() + LISTED_FOR
        found: dict[str, list[Path]] = {}
        for directory in self._directories:
            try:
                names = os.listdir(directory)
            except OSError as error:
                log.debug("no daemon offers files in %s: %s", directory, error)
                continue
            for name in names:
                found.setdefault(name.removesuffix(passing.SUFFIX).rpartition("-")[2], []).append(directory / name)
        self._sockets, self._left_out = found, frozenset()


async def _ask(path: Path, key: ObjectKey) -> LentFile | None:
    """One question to one daemon. Raises OSError; PermissionError if it is not to be trusted."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setblocking(False)
        with socket_address(path) as address:
            await loop.sock_connect(connection, address)
        uid, _ = passing.peer(connection)
        if uid not in {0, os.geteuid()}:
            raise PermissionError(f"{path} belongs to a process of uid {uid}")
        await loop.sock_sendall(connection, passing.question(key))
        arrived = asyncio.Event()
        loop.add_reader(connection, arrived.set)
        try:
            await arrived.wait()
        finally:
            loop.remove_reader(connection)
        return passing.receive(connection, key.size)
