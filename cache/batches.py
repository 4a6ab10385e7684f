"""Small objects on their way to disk: written and sealed many at a time, so that each costs a few system calls.

An epoch over many small files seals thousands of them a second. One worker takes all that wait, writes each, and has
them sealed in one transaction. It lets them gather for a moment, unless somebody waits for the file itself: readers have
the bytes in memory.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fsdriver.errors import NoSpace

from .adoption import Adopter, as_os_error
from .index import Finished
from .keys import ObjectKey
from .scratch import Scratch
from .space import Space
from .sums import Checksum

_MOST: Final = 64
"""Files of one batch: the mutex of the cache directory is held while they get their places."""
_GATHER: Final = 0.02
"""Seconds that a file waits for others. A reader of 500 files a second alone saves a third of its processor time."""
_ENOUGH_BYTES: Final = 4 << 20
"""Bytes that need not wait for more."""
_WAITING_BYTES: Final = 16 << 20
"""Bytes that wait for the disk, above which threads that bring more wait too."""

_log = logging.getLogger("fsdriver.cache")


class Disk(Protocol):
    """What the batches need of the disk cache."""

    @property
    def workers(self) -> Executor: ...
    @property
    def space(self) -> Space: ...
    def disk_failed(self, key: ObjectKey, error: OSError) -> None: ...


@dataclass(slots=True)
class _Item:
    key: ObjectKey
    data: memoryview
    done: Callable[[bool], None]


class Batches:
    """See the module.

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
        self._room = threading.Condition()
        self._waiting: list[_Item] = []
        self._bytes = 0
        self._busy = False
        self._awaited = False

    async def keep(self, key: ObjectKey, data: memoryview) -> bool:
        """Write and seal a whole object; False (counted, and told once) if the cache could not take it."""
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[bool] = loop.create_future()

        def tell(result: bool) -> None:
            if not kept.done():
                kept.set_result(result)

        def done(result: bool) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, result)

        self._add(_Item(key, data, done))
        self.hurry()
        return await kept

    def put(self, key: ObjectKey, data: memoryview, done: Callable[[bool], None]) -> None:
        """As `keep`, from any other thread: ``done`` is called in a worker; waits while much else waits."""
        with self._room:
            while self._bytes > _WAITING_BYTES:
                self._room.wait()
        self._add(_Item(key, data, done))

    def hurry(self) -> None:
        """Somebody waits for what has been brought."""
        with self._room:
            self._awaited = True
            self._room.notify_all()

    def _add(self, item: _Item) -> None:
        with self._room:
            self._waiting.append(item)
            self._bytes += len(item.data)
            begin, self._busy = not self._busy, True
            if self._enough():
                self._room.notify_all()
        if begin:
            self._disk.workers.submit(self._work)

    def _enough(self) -> bool:
        return self._awaited or len(self._waiting) >= _MOST or self._bytes >= _ENOUGH_BYTES

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's."""
        self._room = threading.Condition()
        self._waiting = []
        self._bytes = 0
        self._busy = False
        self._awaited = False

    # -- in a worker -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._room:
                if self._waiting:
                    self._room.wait_for(self._enough, _GATHER)
                self._awaited = False
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                if not batch:
                    self._busy = False
                    return
            try:
                results = self._keep(batch)
            except Exception:  # noqa: BLE001 - whatever it was, the readers of these objects go on without the cache
                _log.exception("%d small objects were not kept in the cache", len(batch))
                results = [False] * len(batch)
            with self._room:
                self._bytes -= sum(len(item.data) for item in batch)
                self._room.notify_all()
            for item, result in zip(batch, results, strict=True):
                try:
                    item.done(result)
                except Exception:  # noqa: BLE001 - the worker lives on, all later objects depend on it
                    _log.exception("%s was written, but not handed to its readers", item.key.label)

    def _keep(self, batch: list[_Item]) -> list[bool]:
        files = [self._write(item) for item in batch]
        written = [file for file in files if file is not None]
        sealed = iter(self._adopter.adopt_many(written) if written else ())
        return [file is not None and next(sealed) for file in files]

    def _write(self, item: _Item) -> Finished | None:
        """The temporary file, complete; None if the disk did not take it."""
        path: str | None = None
        try:
            file, path = self._scratch.create(item.key.file)
            stored = file.encode(0, item.data)
            if not self._disk.space.allocate(file, 0, len(stored)):
                raise NoSpace("the cache's file system has no more free space than cache.min_free", item.key.label)
            file.pwrite(0, stored)
        except (OSError, sqlite3.Error) as error:
            self._disk.disk_failed(item.key, as_os_error(error))
            if path is not None:
                Path(path).unlink(missing_ok=True)
            return None
        return Finished(item.key, path, Checksum(stored, file.unit).digest())
