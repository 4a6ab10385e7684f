"""Telling the kernel to let go of what it caches, from a thread of its own.

The kernel may hold the lock of a directory while it waits for an answer of the daemon, and a notification waits for that lock.
So no request handler sends one or waits for one, no lock of ours is held meanwhile, and none is sent while the mount ends.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from concurrent.futures import Future
from typing import TypeAlias

from .protocol import EXPIRE_ONLY, INVAL_ENTRY_OUT, INVAL_INODE_OUT, OUT_HEADER, Notify

log = logging.getLogger(__name__)

Message: TypeAlias = tuple[Notify, bytes]

_GONE = {errno.ENOENT, errno.ENOTDIR}
"""The kernel did not know it: nothing to let go of."""
_ENDED = {errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EBADF, errno.EPERM}


class Notifier:
    """The notification thread of one connection.

    Parameters
    ----------
    device : int
        Descriptor of /dev/fuse.
    expire_only : bool
        The kernel knows FUSE_EXPIRE_ONLY: a name is looked up again, but a busy directory tree stays in place.
    """

    def __init__(self, device: int, *, expire_only: bool) -> None:
        self._device = device
        self._flags = EXPIRE_ONLY if expire_only else 0
        self._queue: queue.SimpleQueue[tuple[list[Message], Future[None]] | None] = queue.SimpleQueue()
        self._ended = False
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="fuse-notify", daemon=True)
        self._thread.start()

    def entry(self, parent: int, name: str) -> Message:
        """The name must be looked up again."""
        raw = name.encode("utf-8", "surrogateescape")
        return Notify.INVAL_ENTRY, INVAL_ENTRY_OUT.pack(parent, len(raw), self._flags) + raw + b"\0"

    @staticmethod
    def contents(nodeid: int) -> Message:
        """The attributes of a directory must be asked for again, and the names in it that are kept."""
        return Notify.INVAL_INODE, INVAL_INODE_OUT.pack(nodeid, 0, 0)

    @staticmethod
    def everything() -> Message:
        """All names must be looked up again, those known to be absent too (from protocol 7.44 on)."""
        return Notify.INC_EPOCH, b""

    @staticmethod
    def attributes(nodeid: int) -> Message:
        """The attributes must be asked for again; pages stay."""
        return Notify.INVAL_INODE, INVAL_INODE_OUT.pack(nodeid, -1, 0)

    def send(self, messages: list[Message]) -> Future[None]:
        """Queue messages; the future ends when the kernel has acted on all of them."""
        done: Future[None] = Future()
        if self._ended or not messages:
            done.set_result(None)
        else:
            self._queue.put((messages, done))
        return done

    def stop(self) -> None:
        """Send nothing more; does not wait for a message that the kernel is holding up."""
        self._ended = True
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            messages, done = item
            for code, body in messages:
                if self._ended:
                    break
                self._write(code, body)
            done.set_result(None)

    def _write(self, code: Notify, body: bytes) -> None:
        try:
            os.writev(self._device, [OUT_HEADER.pack(OUT_HEADER.size + len(body), code, 0), body])
            self.sent += 1
        except OSError as error:
            if error.errno in _ENDED:
                self._ended = True
            elif error.errno not in _GONE:
                log.warning("the kernel refused a %s notification: %s", code.name, error)
