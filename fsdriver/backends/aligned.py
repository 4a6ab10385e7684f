"""Memory for direct I/O, and several requests at a time: what all ``direct://`` stores of a process share.

Buffers are anonymous private mappings, aligned to pages as O_DIRECT asks (open(2)), in huge pages where the kernel has some:
it then pins one page for a request where it would pin 512. No processor writes to a buffer while the kernel reads into it, so
a fork at that moment moves no page of the parent; the child begins with buffers and threads of its own.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

BLOCK: Final = 2 << 20
"""Bytes of a buffer, and of the largest single request."""
BUFFERS: Final = 16
"""Most buffers of a process: with `BLOCK` this bounds the memory of all writes and small reads under way."""
DEPTH: Final = 4
"""Most requests of one read or write at a time."""
LANES: Final = 8
"""Threads that help."""


def mapped(size: int) -> mmap.mmap:
    """Memory of its own, aligned to pages."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= BLOCK and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class _Shared:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free = threading.Semaphore(BUFFERS)
        self.idle: list[mmap.mmap] = []
        self.lanes: ThreadPoolExecutor | None = None

    def help(self, work: Callable[[], None]) -> Future[None] | None:
        with self.lock:
            if self.lanes is None:
                self.lanes = ThreadPoolExecutor(LANES, "fsdriver-direct")
        try:
            return self.lanes.submit(work)
        except RuntimeError:  # the interpreter ends, and begins no more threads
            return None


_shared = _Shared()


def _after_fork() -> None:
    global _shared  # noqa: PLW0603 - what the parent's requests use stays untouched
    _inherited.append(_shared)
    _shared = _Shared()


_inherited: list[_Shared] = []
"""What the parent had, kept alive so that nothing of it is unmapped or joined in the child."""
os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def buffer() -> Iterator[memoryview]:
    """One of the buffers, of `BLOCK` bytes; waits while all are in use. Its content is that of the last use."""
    shared = _shared
    with shared.free:
        with shared.lock:
            memory = shared.idle.pop() if shared.idle else None
        memory = memory or mapped(BLOCK)
        try:
            with memoryview(memory) as view:
                yield view
        finally:
            with shared.lock:
                shared.idle.append(memory)


class _Work:
    """Steps that several threads take one by one, until they are done or one has failed."""

    def __init__(self, starts: Iterator[int], step: Callable[[int], None]) -> None:
        self._starts = starts
        self._step = step
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def run(self) -> None:
        while self.failure is None:
            with self._lock:
                start = next(self._starts, None)
            if start is None:
                return
            try:
                self._step(start)
            except BaseException as error:  # noqa: BLE001 - it is raised by the thread that asked for the work
                self.failure = error


def each(starts: range, step: Callable[[int], None]) -> None:
    """Take a step for each start, `DEPTH` of them at a time; returns, or raises the failure, when none is under way.

    The calling thread works, too: it never waits for threads that are busy with other requests.
    """
    work = _Work(iter(starts), step)
    helpers = [_shared.help(work.run) for _ in range(min(DEPTH, len(starts)) - 1)]
    work.run()
    for helper in helpers:
        if helper is not None and not helper.cancel():
            helper.result()
    if work.failure is not None:
        raise work.failure
