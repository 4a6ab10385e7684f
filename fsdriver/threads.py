"""A few threads for short work that waits, begun when they are first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

MOST: Final = 8

_log = logging.getLogger(__name__)


class Threads:
    """Unlike an executor's, its queue is never longer than the threads that wait: more work is refused."""

    def __init__(self, name: str, most: int = MOST) -> None:
        self._name = name
        self._most = most
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have no thread as yet: in a forked child, where those of the parent are not."""
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._closing = False
        self._threads: list[threading.Thread] = []

    def submit(self, work: Callable[[], None]) -> bool:
        """Have a thread do it, which must not raise; False: all are busy."""
        with self._lock:
            if self._closing:
                return False
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                return False
        self._queue.put(work)
        return True

    def close(self) -> None:
        """Wait for what is under way; later work begins anew."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        with self._lock:
            self._threads, self._idle, self._closing = [], 0, False

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except BaseException:  # noqa: BLE001 - the thread lives on, others depend on it; Rust's panics are no Exceptions
                _log.exception("%s failed", work)
            work = None
            with self._lock:
                self._idle += 1
