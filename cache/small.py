"""A small object fetched whole: by one process for all, and by a thread if that will do.

A thread needs half the processor time of the event loop. It makes one attempt and is soon given up. Whatever goes wrong,
the readers ask again on the event loop, where deadlines, retries and errors are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from typing import TYPE_CHECKING

from fsdriver.runtime import on_loop, spawn

from . import locks
from .keys import FetchNow

if TYPE_CHECKING:
    from .fill import Fill
    from .request import Storage

_log = logging.getLogger("fsdriver.cache")

_claiming = threading.Lock()
"""Guards the few instructions that decide who fetches."""
os.register_at_fork(before=_claiming.acquire, after_in_parent=_claiming.release, after_in_child=_claiming.release)


class _Way(Enum):
    OPEN = "nobody has asked for bytes yet"
    THREAD = "a thread fetches, or has fetched"
    LOOP = "requests are made on the event loop"


class SmallFetch:
    """The part of a `Fill` that a thread may do.

    Parameters
    ----------
    fill : Fill
    storage : Storage

    Attributes
    ----------
    whole : memoryview or None
        All bytes of the object, from their arrival until the file is sealed.
    """

    def __init__(self, fill: Fill, storage: Storage) -> None:
        self.whole: memoryview | None = None
        self._fill = fill
        self._storage = storage
        self._way = _Way.OPEN
        self._over: Future[None] = Future()
        self._settled: Future[None] = Future()

    @property
    def busy(self) -> bool:
        """A thread fetches, or the file waits to be sealed: the fill is kept even without readers."""
        return self._way is _Way.THREAD

    def begin(self, fetch: FetchNow, done: Callable[[], None]) -> bool:
        """Have a thread fetch the object; ``done`` is called there when it is here or has failed. False: use the loop."""
        with _claiming:
            if self._way is not _Way.OPEN:
                return False
            self._way = _Way.THREAD
        if self._storage.threads.submit(lambda: self._run(fetch, done)):
            return True
        self._give_up()
        return False

    def here(self, fetch: FetchNow) -> None:
        """As `begin`, in this thread, which may wait; nothing happens where somebody has begun."""
        with _claiming:
            if self._way is not _Way.OPEN:
                return
            self._way = _Way.THREAD
        self._run(fetch, lambda: None)

    async def join(self) -> None:
        """Leave the rest to the event loop, after waiting for a thread that has begun; call before `on_loop`."""
        with _claiming:
            if self._way is _Way.OPEN:
                self._way = _Way.LOOP
        await on_loop()
        if self._way is _Way.THREAD and not self._over.done():
            await asyncio.shield(asyncio.wrap_future(self._over))

    async def finish(self) -> None:
        """Wait until what a thread has fetched is sealed, or the cache could not take it."""
        if self._way is _Way.THREAD and not self._settled.done():
            self._storage.batches.hurry()
            await asyncio.shield(asyncio.wrap_future(self._settled))

    async def claim(self) -> bool:
        """Become the one process that fetches the object; False, after waiting for another one, if it is here now."""
        fill, storage = self._fill, self._storage
        place = fill.key.place
        loop = asyncio.get_running_loop()
        pause, longest = locks.POLLS
        deadline = loop.time() + locks.PATIENCE
        waited = False
        while not storage.claims.take(place) and loop.time() < deadline:
            waited = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        return not (waited and storage.contains(fill.key) and storage.fills.placed(fill))

    def unclaim(self) -> None:
        """It is sealed, or others may try."""
        self._storage.claims.drop(self._fill.key.place)

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self, fetch: FetchNow, done: Callable[[], None]) -> None:
        data = None
        try:
            # Waiting for another process is left to the event loop.
            data = fetch() if self._storage.claims.take(self._fill.key.place) else None
            if data is not None:
                self._storage.counts.fetches += 1
                self._storage.counts.fetched_bytes += len(data)
                self.whole = data.toreadonly()
        finally:
            if data is None:
                self._give_up()
            else:
                self._over.set_result(None)
            done()
        if data is not None:
            self._storage.batches.put(self._fill.key, data, self._kept)
        elif not self._fill.readers:
            self._storage.fills.retired(self._fill)

    def _give_up(self) -> None:
        self.unclaim()
        self._way = _Way.LOOP
        self._over.set_result(None)
        self._settled.set_result(None)

    def _kept(self, placed: bool) -> None:
        """In a worker: the file is in its place, or the cache could not take it."""
        if not placed:
            spawn(self._keep_in_memory())
            return
        try:
            there = self._storage.fills.placed(self._fill)
        except OSError as error:
            # Too many open files, most likely. Readers ask on the event loop, and are told if that fails, too.
            _log.warning("%s: its cache file cannot be opened: %s", self._fill.key.label, error)
            there = False
        if not there:
            self._way = _Way.LOOP  # it has gone again: evicted, or un-sealed for writing
        self.whole = None
        self.unclaim()
        self._settled.set_result(None)

    async def _keep_in_memory(self) -> None:
        whole, self.whole = self.whole, None
        self._way = _Way.LOOP
        if whole is not None:
            self._fill.keep_in_memory(whole)
        self.unclaim()
        self._settled.set_result(None)
