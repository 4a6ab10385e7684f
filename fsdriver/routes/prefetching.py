"""Hints: files fetched into the cache that nobody waits for. They never fail for who gave them; failures are counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fsdriver.entry import Entry
from fsdriver.routes.caching import warm
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop, spawn

JOBS: Final = 8
"""Files fetched at a time."""
MOST_WAITING: Final = 100_000
"""Files that wait; more are dropped."""

Place: TypeAlias = tuple[Route, str, Entry]
"""A file, and what a listing said of it."""
Find: TypeAlias = Callable[[], Coroutine[Any, Any, Sequence[Place]]]
"""Finds out which files a hint means."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prefetched:
    """What became of the hints of a process.

    Attributes
    ----------
    files, bytes : int
        In the cache now because of them, and what was fetched for that; files that were there count with no bytes.
    failed : int
        Files, or hints whose files could not be found.
    dropped : int
        Files of which too many waited.
    waiting : int
        Files that wait, or are being fetched.
    """

    files: int = 0
    bytes: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0


class Prefetcher:
    """See the module. `hint`, `counts` and `close` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Place] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._finding = 0
        self._files = self._bytes = self._failed = self._dropped = 0
        self._closed = False

    def hint(self, find: Find) -> None:
        """Find files and fetch them, in the background."""
        with self._lock:
            if self._closed:
                return
            self._finding += 1
        spawn(self._follow(find))

    def counts(self) -> Prefetched:
        """So far."""
        waiting = len(self._waiting) + len(self._workers) + self._finding
        return Prefetched(self._files, self._bytes, self._failed, self._dropped, waiting)

    async def close(self) -> None:
        """End what is under way."""
        with self._lock:
            self._closed = True
        await on_loop()
        self._waiting.clear()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _follow(self, find: Find) -> None:
        try:
            places = await find()
        except (OSError, ValueError) as error:
            self._failed += 1
            log.info("a hint was of no use: %s", error)
            return
        finally:
            self._finding -= 1
        room = MOST_WAITING - len(self._waiting)
        self._dropped += max(0, len(places) - room)
        self._waiting.extend(places[:room])
        for _ in range(0 if self._closed else min(JOBS - len(self._workers), len(self._waiting))):
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._waiting:
            route, name, entry = self._waiting.popleft()
            try:
                fetched = await warm(route, name, entry)
            except OSError as error:
                self._failed += 1
                log.info("%s was not fetched ahead: %s", name, error)
            else:
                self._files += 1
                self._bytes += fetched
