"""The request loop: reads the kernel's requests, hands each to its operation, writes the replies.

One thread reads. An operation that needs no waiting is answered in that thread; one that waits continues on the event loop and
is answered from there, so that thousands may be under way and none holds a thread.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import CoroutineType
from typing import Any, Final, TypeAlias

from fsdriver.runtime import Started, start

from .passthrough import MAX_STACK_DEPTH
from .protocol import (
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    INTERRUPT_IN,
    MAJOR,
    MINOR,
    MINOR_LEAST,
    OUT_HEADER,
    InitFlag,
    Opcode,
)

log = logging.getLogger(__name__)

PAGE: Final = os.sysconf("SC_PAGESIZE")
MAX_PAGES: Final = 256
"""Pages of one request: 1 MiB, the most the kernel grants without a change of ``fs.fuse.max_pages_limit``."""
MAX_WRITE: Final = MAX_PAGES * PAGE
MAX_BACKGROUND: Final = 2048
"""Reads ahead and other requests without a waiting system call that the kernel sends at a time."""
WANTED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.EXPLICIT_INVAL_DATA
    | InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.INIT_EXT
    | InitFlag.HAS_EXPIRE_ONLY
    | InitFlag.PASSTHROUGH
)
"""Asked for. HANDLE_KILLPRIV_V2 keeps the kernel from asking for ``security.capability`` before every write. Without
READDIRPLUS_AUTO every page of a directory comes with attributes: find(1) reads a large directory whole before it asks for
the first of them, each of which would cost a LOOKUP then."""

_CANCELLED: Final = frozenset(
    {Opcode.LOOKUP, Opcode.GETATTR, Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.OPENDIR}
)
"""An interrupt ends these; they change nothing."""
_ABANDONED: Final = frozenset({Opcode.FLUSH, Opcode.FSYNC, Opcode.FSYNCDIR})
"""An interrupt ends the waiting; the work goes on. All others finish within the deadline of the store."""


class Request:
    """One request; ``body`` is valid until its operation first waits.

    Attributes
    ----------
    unique, nodeid, uid, gid, pid : int
    body : memoryview
        What follows the header.
    """

    __slots__ = ("body", "gid", "nodeid", "opcode", "pid", "uid", "unique")

    def __init__(self, opcode: int, unique: int, nodeid: int, uid: int, gid: int, pid: int, body: memoryview) -> None:
        self.opcode = opcode
        self.unique = unique
        self.nodeid = nodeid
        self.uid = uid
        self.gid = gid
        self.pid = pid
        self.body = body


Reply: TypeAlias = bytes | bytearray | memoryview | None
"""Body of a reply; None: there is none, or it was or will be written elsewhere."""
Operation: TypeAlias = Callable[[Request], "Reply | Coroutine[Any, Any, Reply]"]


def answer_code(error: BaseException) -> tuple[int, bool]:
    """The errno that a failed operation is answered with, and whether it says that something is wrong; logs it."""
    if isinstance(error, OSError):
        log.debug("answered with an error: %r", error)
        wrong = error.errno in {errno.EIO, None}
        if wrong:
            log.warning("answered with an input/output error: %s", error)
        return error.errno or errno.EIO, wrong
    if isinstance(error, asyncio.CancelledError):
        return errno.EINTR, False
    if isinstance(error, KeyError):
        log.warning("the kernel named something unknown: %s", error)
        return errno.ESTALE, False
    log.error("an operation failed in a way nobody foresaw", exc_info=error)
    return errno.EIO, True


class _Deferred:
    """A request that a thread is to answer soon; an interrupt is noted until then."""

    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Session:
    """One connection to the kernel.

    Parameters
    ----------
    device : int
        Descriptor of /dev/fuse, mounted.
    operations : mapping
        What answers each opcode; INIT and INTERRUPT are answered here.
    on_end : callable
        Called in the reader thread when the kernel has ended the connection.
    """

    def __init__(
        self, device: int, operations: Mapping[int, Operation], on_end: Callable[[], None] = lambda: None
    ) -> None:
        self.device = device
        self._on_end = on_end
        self.granted = InitFlag(0)
        self.minor = 0
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.counts = [0] * 64
        self.errors = 0
        self._operations: list[Operation | None] = [operations.get(code) for code in range(64)]
        self._operations[Opcode.INIT] = self._init
        self._operations[Opcode.INTERRUPT] = self._interrupt
        self._waiting: dict[int, tuple[int, Started | _Deferred]] = {}
        self._abandoned: set[int] = set()
        self._thread: threading.Thread | None = None
        self.failure: str = ""

    @property
    def in_flight(self) -> int:
        """Operations that wait for something now."""
        return len(self._waiting)

    def served(self, opcode: Opcode) -> int:
        """Requests of one kind so far."""
        return self.counts[opcode]

    def begin(self) -> None:
        """Start the reader thread."""
        self._thread = threading.Thread(target=self._serve, name="fuse-reader", daemon=True)
        self._thread.start()

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._loop()
        finally:
            self.ready.set()
            self.ended.set()
            self._on_end()

    def _loop(self) -> None:
        buffer = bytearray(MAX_WRITE + PAGE)
        view, buffers = memoryview(buffer), [buffer]
        device, unpack, counts, operations = self.device, IN_HEADER.unpack_from, self.counts, self._operations
        header, readv, answer = IN_HEADER.size, os.readv, self._answer
        while True:
            try:
                length = readv(device, buffers)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:
                    continue
                if error.errno != errno.ENODEV:
                    log.exception("reading from the kernel failed, the mount ends")
                    self.failure = str(error)
                return
            if length < header:
                if not length:
                    return
                log.error("a request of %d bytes is shorter than its header, and is left out", length)
                continue
            _, opcode, unique, nodeid, uid, gid, pid, _, _ = unpack(buffer)
            known = opcode < 64
            counts[opcode if known else 0] += 1
            operation = operations[opcode] if known else None
            if operation is None:
                self.fail(unique, errno.ENOSYS)
            else:
                answer(operation, Request(opcode, unique, nodeid, uid, gid, pid, view[header:length]))

    def _answer(self, operation: Operation, request: Request) -> None:
        unique = request.unique
        try:
            result = operation(request)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the caller gets an answer
            self._done(unique, None, error)
            return
        if type(result) is not CoroutineType:
            if result is not None:
                self.reply(unique, result)  # type: ignore[arg-type]
            return
        started = start(result, partial(self._done, unique))
        if started is not None:
            self._waiting[unique] = (request.opcode, started)
            started.resume()

    def defer(self, request: Request) -> Callable[[Callable[[], Reply | Coroutine[Any, Any, Reply]]], None]:
        """Another thread will answer: it calls what is returned with the operation that makes the reply."""
        unique, opcode, waiting = request.unique, request.opcode, _Deferred()
        self._waiting[unique] = (opcode, waiting)

        def proceed(operation: Callable[[], Reply | Coroutine[Any, Any, Reply]]) -> None:
            if waiting.cancelled:
                self._done(unique, None, asyncio.CancelledError())
            else:
                self._waiting.pop(unique, None)
                self._answer(lambda _: operation(), request)

        return proceed

    def _done(self, unique: int, result: Reply, error: BaseException | None) -> None:
        self._waiting.pop(unique, None)
        if unique in self._abandoned:
            self._abandoned.discard(unique)
            if isinstance(error, OSError):
                log.warning("an operation failed after its caller was interrupted: %s", error)
            return
        if error is None:
            if result is not None:
                self.reply(unique, result)
        else:
            code, wrong = answer_code(error)
            self.errors += wrong
            self.fail(unique, code)

    # -- replies -----------------------------------------------------------------------------------------------------

    def reply(self, unique: int, body: bytes | bytearray | memoryview) -> None:
        """Answer a request; one that was aborted meanwhile needs none."""
        try:
            os.writev(self.device, (OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique), body))
        except OSError as error:
            self._unwritten(unique, error)

    def fail(self, unique: int, code: int) -> None:
        """Answer a request with an errno."""
        try:
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size, -code, unique))
        except OSError as error:
            self._unwritten(unique, error)

    def _unwritten(self, unique: int, error: OSError) -> None:
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED}:
            return
        log.error("the kernel did not take a reply: %s", error)
        if error.errno == errno.EINVAL:
            # It keeps waiting for an answer it can parse.
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size, -errno.EIO, unique))

    # -- INIT and INTERRUPT ------------------------------------------------------------------------------------------

    def _init(self, request: Request) -> Reply:
        major, minor, max_readahead, low, high = INIT_IN.unpack_from(request.body)
        if major != MAJOR or minor < MINOR_LEAST:
            self.failure = (
                f"the kernel speaks FUSE {major}.{minor}; {MAJOR}.{MINOR_LEAST} or newer is needed (Linux 5.4)"
            )
            self.fail(request.unique, errno.EPROTO)
            self.ready.set()
            return None
        offered = InitFlag(low | (high << 32 if low & InitFlag.INIT_EXT else 0))
        self.minor = min(minor, MINOR)
        self.granted = flags = offered & WANTED
        depth = MAX_STACK_DEPTH if InitFlag.PASSTHROUGH in flags else 0
        pages = MAX_PAGES if InitFlag.MAX_PAGES in flags else 0
        self.reply(
            request.unique,
            INIT_OUT.pack(
                MAJOR, self.minor, max_readahead, flags & 0xFFFFFFFF, MAX_BACKGROUND, MAX_BACKGROUND * 3 // 4, MAX_WRITE, 1,
                pages, 0, flags >> 32, depth, 0,
            ),
        )  # fmt: skip
        self.ready.set()
        return None

    def _interrupt(self, request: Request) -> Reply:
        (unique,) = INTERRUPT_IN.unpack_from(request.body)
        waiting = self._waiting.get(unique)
        if waiting is not None:
            opcode, started = waiting
            if opcode in _CANCELLED:
                started.cancel()
            elif opcode in _ABANDONED:
                self._abandoned.add(unique)
                self.fail(unique, errno.EINTR)
        return None
