"""One ranged fetch of a fill, and what a fill needs of the disk cache."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fsdriver.threads import Threads

from .batches import Batches
from .files import LocalFile, SealedFile
from .keys import ObjectKey
from .memory import Budget, Kept
from .stats import Counts

if TYPE_CHECKING:
    from .fill import Fill


class Storage(Protocol):
    """What a fill needs of the disk cache."""

    counts: Counts
    budget: Budget
    kept: Kept
    batches: Batches
    threads: Threads

    @property
    def workers(self) -> Executor: ...
    def temporary(self, key: ObjectKey) -> tuple[LocalFile, Path]: ...
    def ample(self, size: int) -> bool: ...
    def allocate(self, file: LocalFile, start: int, size: int) -> bool: ...
    def adopt(self, key: ObjectKey, file: LocalFile, path: Path) -> SealedFile: ...
    def placed(self, fill: Fill) -> bool: ...
    def finished(self, fill: Fill) -> None: ...
    def retired(self, fill: Fill) -> bool: ...
    def disk_failed(self, key: ObjectKey, error: OSError) -> None: ...


class Request:
    """One ranged fetch. ``arrived`` gives waiters the buffer; ``task`` ends when it is on disk, or has failed."""

    __slots__ = ("arrived", "buffer", "end", "error", "start", "task")

    def __init__(self, start: int, end: int, arrived: asyncio.Future[memoryview]) -> None:
        self.start = start
        self.end = end
        self.arrived = arrived
        self.buffer: memoryview | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
