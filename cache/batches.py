"""Small objects on their way to disk: written and sealed many at a time, so that each costs a few system calls.

An epoch over many small files seals thousands of them a second. One worker takes all that wait, writes each, and has
them sealed in one transaction; while it works the next ones gather.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fsdriver.errors import NoSpace

from .adoption import Adopter
from .files import LocalFile
from .keys import ObjectKey
from .scratch import Scratch

_MOST: Final = 64
"""Files of one batch: the mutex of the cache directory is held while they get their places."""

_log = logging.getLogger("fsdriver.cache")


class Disk(Protocol):
    """What the batches need of the disk cache."""

    @property
    def workers(self) -> Executor: ...
    def allocate(self, file: LocalFile, start: int, size: int) -> bool: ...
    def disk_failed(self, key: ObjectKey, error: OSError) -> None: ...


@dataclass(slots=True)
class _Item:
    key: ObjectKey
    data: memoryview
    done: asyncio.Future[bool]


class Batches:
    """See the module. `keep` is called on the event loop.

    Parameters
    ----------
    disk : Disk
    scratch : Scratch
    adopter : Adopter
    """

    def __init__(self, disk: Disk, scratch: Scratch, adopter: Adopter) -> None:
        self._disk = disk
        self._scratch = scratch
        self._adopter = adopter
        self._lock = threading.Lock()
        self._waiting: list[_Item] = []
        self._busy = False

    async def keep(self, key: ObjectKey, data: memoryview) -> bool:
        """Write and seal a whole object; False (counted, and told once) if the cache could not take it."""
        loop = asyncio.get_running_loop()
        item = _Item(key, data, loop.create_future())
        with self._lock:
            self._waiting.append(item)
            begin, self._busy = not self._busy, True
        if begin:
            self._disk.workers.submit(self._work, loop)
        return await item.done

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's."""
        self._lock = threading.Lock()
        self._waiting = []
        self._busy = False

    # -- in a worker -------------------------------------------------------------------------------------------------

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                if not batch:
                    self._busy = False
                    return
            try:
                results = self._keep(batch)
            except Exception:  # noqa: BLE001 - whatever it was, the readers of these objects go on without the cache
                _log.exception("%d small objects were not kept in the cache", len(batch))
                results = [False] * len(batch)
            _tell(loop, batch, results)

    def _keep(self, batch: list[_Item]) -> list[bool]:
        paths = [self._write(item) for item in batch]
        written = [(item.key, path) for item, path in zip(batch, paths, strict=True) if path is not None]
        sealed = iter(self._adopter.adopt_many(written) if written else ())
        return [path is not None and next(sealed) for path in paths]

    def _write(self, item: _Item) -> str | None:
        """The temporary file, complete; None if the disk did not take it."""
        size = item.key.size
        path: str | None = None
        try:
            file, path = self._scratch.create()
            if not self._disk.allocate(file, 0, size):
                raise NoSpace("the cache's file system has no more free space than cache.min_free", item.key.label)
            file.write(0, item.data)
        except OSError as error:
            self._disk.disk_failed(item.key, error)
            if path is not None:
                Path(path).unlink(missing_ok=True)
            return None
        return path


def _tell(loop: asyncio.AbstractEventLoop, batch: list[_Item], results: list[bool]) -> None:
    def tell() -> None:
        for item, result in zip(batch, results, strict=True):
            if not item.done.done():
                item.done.set_result(result)

    if not loop.is_closed():
        loop.call_soon_threadsafe(tell)
