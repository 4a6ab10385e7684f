"""READ: where the kernel does not read the local file itself."""

from __future__ import annotations

import errno
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdriver.cache import Reader
from fsdriver.errors import Stale
from fsdriver.fuse_mount.protocol import READ_IN
from fsdriver.fuse_mount.session import MAX_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.openstate import OpenState
    from fsdriver.fuse_mount.session import Reply, Request, Session

    Answer = Reply | Coroutine[Any, Any, Reply]

log = logging.getLogger(__name__)

_NO_WAIT_REFUSED: Final = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Reads:
    """READ, where the kernel does not read the local file itself.

    What the page cache of the local file has is answered by the reader thread out of one buffer; what is on disk by a worker;
    what is in the store when it has arrived.
    """

    def __init__(self, fs: FileSystem, session: Callable[[], Session]) -> None:
        self._fs = fs
        self._session = session
        self._buffer = memoryview(bytearray(MAX_WRITE))
        self._no_wait = hasattr(os, "RWF_NOWAIT")

    def __call__(self, request: Request) -> Answer:
        number, offset, size, *_ = READ_IN.unpack_from(request.body)
        handle = self._fs.handles.files[number]
        if handle.data is not None:
            return handle.data[offset : offset + size]
        state = handle.node.opened
        if state is None:
            raise Stale("it is not open")
        descriptor = state.descriptor()
        if descriptor is not None:
            _note_order(state, descriptor, offset, offset + size)
            return self._read_local(request.unique, descriptor, offset, size)
        reader = state.reader
        if reader is None:
            raise Stale("it has no bytes")
        data = reader.read_now(offset, size)
        if data is not None:
            return data
        if isinstance(reader, Reader) and reader.small:
            proceed = self._session().defer(request)
            if not reader.fetch_now(lambda: proceed(partial(_read, reader, offset, size))):
                proceed(partial(reader.read, offset, size))
            return None
        return reader.read(offset, size)

    def _read_local(self, unique: int, descriptor: int, offset: int, size: int) -> Reply:
        wanted = self._buffer[:size]
        if self._no_wait:
            try:
                done = os.preadv(descriptor, [wanted], offset, os.RWF_NOWAIT)
                if done == size or offset + done >= os.fstat(descriptor).st_size:
                    return wanted[:done]
            except BlockingIOError:
                pass  # not in memory: a worker waits for the disk
            except OSError as error:
                if error.errno not in _NO_WAIT_REFUSED:
                    raise
                log.info("this file system has no RWF_NOWAIT, workers do all reads: %s", error)
                self._no_wait = False
        # The descriptor may be closed while the read waits; a duplicate is not.
        self._fs.disk.submit(self._read_blocking, unique, os.dup(descriptor), offset, size)
        return None

    def _read_blocking(self, unique: int, descriptor: int, offset: int, size: int) -> None:
        session = self._session()
        try:
            data = os.pread(descriptor, size, offset)
        except OSError as error:
            session.fail(unique, error.errno or errno.EIO)
        else:
            session.reply(unique, data)
        finally:
            os.close(descriptor)


def _note_order(state: OpenState, descriptor: int, start: int, end: int) -> None:
    """Tell the kernel of a sequential reader: it then reads the local file in larger steps, ahead of the requests.

    Asking for ranges ahead (POSIX_FADV_WILLNEED) would fill the page cache with single pages instead of large folios, which
    costs every later read of them half as much again.
    """
    if start == state.position and not state.sequential:
        state.sequential = True
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    state.position = end


def _read(reader: Reader, offset: int, size: int) -> Answer:
    data = reader.read_now(offset, size)
    return data if data is not None else reader.read(offset, size)
