"""Requests of the kernel's protocol made by this process itself, in the thread of whoever waits for the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Final, TypeAlias

from fsdriver.fuse_mount.protocol import Opcode
from fsdriver.fuse_mount.session import Reply, Request, answer_code
from fsdriver.runtime import start

if TYPE_CHECKING:
    from fsdriver.fuse_mount.session import Operation

Body: TypeAlias = bytes | bytearray | memoryview
Context: TypeAlias = Callable[[], tuple[int, int, int]]
"""User, group and process on whose behalf this thread works now."""


_OWNED: Final = frozenset({Opcode.CREATE, Opcode.MKDIR, Opcode.MKNOD, Opcode.SYMLINK})
"""Requests that make something, which then belongs to who asked."""


class Calls:
    """Carries requests out.

    Parameters
    ----------
    operations : mapping
        By opcode, as `operations.bind` makes them.
    context : callable

    Attributes
    ----------
    counts : list of int
        Requests so far, by opcode.
    errors : int
        Those that failed in a way that says something is wrong.
    in_flight : int
        Those that wait for something now.
    """

    def __init__(self, operations: Mapping[int, Operation], context: Context) -> None:
        self._operations = operations
        self._context = context
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self.counts = [0] * 64
        self.errors = 0
        self.in_flight = 0

    def __call__(self, opcode: Opcode, nodeid: int, body: Body = b"") -> Body:
        """The body of the reply.

        Raises
        ------
        OSError
            Whatever went wrong, with the errno for the caller.
        """
        self.counts[opcode] += 1
        uid, gid, pid = self._context() if opcode in _OWNED else (0, 0, 0)
        request = Request(opcode, 0, nodeid, uid, gid, pid, memoryview(body))
        try:
            return self._carry_out(self._operations[opcode], request) or b""
        except BaseException as error:  # libfuse is told an errno, whatever it was; Rust's panics too
            raise self.failed(error) from error

    def _carry_out(self, operation: Operation, request: Request) -> Reply:
        # Operations expect that one of them begins at a time, as in the reader thread of the kernel transport.
        with self._turn:
            result = operation(request)
            if type(result) is not CoroutineType:
                return result  # type: ignore[return-value]
            answer: Future[Reply] = Future()
            started = start(result, partial(_settle, answer))
        if started is None:
            return answer.result()
        self._count(1)
        try:
            started.resume()
            return answer.result()
        finally:
            self._count(-1)

    def failed(self, error: BaseException) -> OSError:
        """An error as the caller is told of it; counted if it says that something is wrong."""
        code, wrong = answer_code(error)
        if wrong:
            with self._counting:
                self.errors += 1
        return error if isinstance(error, OSError) and error.errno == code else OSError(code, str(error))

    def _count(self, change: int) -> None:
        with self._counting:
            self.in_flight += change


def _settle(answer: Future[Reply], result: Reply, error: BaseException | None) -> None:
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
