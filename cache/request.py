"""One ranged fetch of a fill, and what a fill needs of the disk cache."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol

from fsdriver.threads import Threads

from .batches import Batches
from .claims import Claims
from .keys import ObjectKey
from .memory import Budget, Kept
from .pace import Pace
from .partial import Partial
from .partials import Partials
from .stats import Counts

if TYPE_CHECKING:
    from .fills import Fills


class Storage(Protocol):
    """What a fill needs of the disk cache."""

    counts: Counts
    claims: Claims
    budget: Budget
    kept: Kept
    batches: Batches
    threads: Threads

    @property
    def workers(self) -> Executor: ...
    @property
    def fills(self) -> Fills: ...
    @property
    def partials(self) -> Partials: ...
    def pace(self, store: str) -> Pace: ...
    def contains(self, key: ObjectKey) -> bool: ...
    def disk_failed(self, key: ObjectKey, error: OSError) -> None: ...
    def corrupt(self, key: ObjectKey) -> None: ...
    def leave(self, key: ObjectKey, partial: Partial) -> None: ...


class Request:
    """One range that is fetched, by this process or another one. ``task`` ends when it is on disk, or has failed.

    ``arrived`` gives waiters the buffer, or None when they should look at the sealed file.
    """

    __slots__ = ("arrived", "buffer", "end", "error", "start", "task")

    def __init__(self, start: int, end: int, arrived: asyncio.Future[memoryview | None]) -> None:
        self.start = start
        self.end = end
        self.arrived = arrived
        self.buffer: memoryview | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
