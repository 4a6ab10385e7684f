"""One object on its way into the cache: a partial file that all processes share, and this process's requests.

Everything but `local` and `abandon` runs on the event loop, so state needs no lock; no lock is held while a request
waits. Bytes go to waiting readers straight from the fetched buffer; the buffer goes to disk; then the blocks count as
present. A request for what another process fetches waits for that, and for what is there already reads and checks it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable, Sequence
from typing import Final

from fsdriver.errors import BackendError, Corrupt, NoSpace
from fsdriver.runtime import on_loop

from .blocks import BLOCK, COMING, GRAIN, MISSING, PRESENT, BlockMap
from .files import SealedFile
from .keys import Fetch, ObjectKey
from .large import LargeFetch, fetched
from .readahead import LARGEST_REQUEST, MIB, SMALLEST_REQUEST, Plan
from .request import Request, Storage
from .small import SmallFetch

WHOLE: Final = 1 * MIB
"""Objects up to this many bytes are fetched in one request."""
UNSTORED_WINDOW: Final = 16 * MIB
"""Read-ahead of a fill without a disk file: a part of what `Kept` holds, so that it is read before it is dropped."""


class Fill:
    """See the module.

    Parameters
    ----------
    storage : Storage
    key : ObjectKey
    fetch : Fetch
    stored : bool
        False: the object can't be kept on disk; it streams through memory.
    streams : bool
        It does so although it could be kept, until `complete` is called.

    Attributes
    ----------
    readers : int
        Counted by `DiskCache`, under its lock.
    settled : bool
        `DiskCache` took note of the finished file.
    sealed : SealedFile or None
        The finished file.
    disk_error : OSError or None
        Why the disk did not take it.
    pace : Pace
        How its store is asked.
    """

    def __init__(self, storage: Storage, key: ObjectKey, fetch: Fetch, *, stored: bool, streams: bool = False) -> None:
        self.key = key
        self.blocks = BlockMap(key.size)
        self.sealed: SealedFile | None = None
        self.readers = 0
        self.settled = False
        self.stored = stored and not streams
        self._streams = stored and streams
        self.disk_error: OSError | None = None
        self.pid = os.getpid()
        self.pace = storage.pace(key.store)
        self._storage = storage
        self._fetch = fetch
        self._requests: dict[int, Request] = {}
        self._active = 0
        self._storing = 0
        self._leaving = False
        self._plan: Plan | None = None
        self._sealing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.small = SmallFetch(self, storage) if self.stored and key.size <= WHOLE else None
        self.large = LargeFetch(self, storage, fetch) if key.size > WHOLE else None

    # -- from any thread ---------------------------------------------------------------------------------------------

    def local(self, start: int, end: int) -> bytes | memoryview | None:
        """Bytes that are on disk or in one fetched buffer; None when some would have to be fetched."""
        if self.small is not None and (whole := self.small.whole) is not None:
            return whole[start:end]
        if (sealed := self.sealed) is not None:
            return sealed.file.read(start, end - start)
        file = None if self.large is None else self.large.file
        if file is not None and self.blocks.has(start, end):
            return file.read(start, end - start)
        request = self._requests.get(start // GRAIN)
        if request is not None and request.end >= end:
            buffer = request.buffer
            if buffer is not None:
                return buffer[start - request.start : end - request.start]
        return None

    def suggest(self, plan: Plan) -> None:
        """Fetch ahead, if there is anything worth a request."""
        loop = self._loop
        if loop is not None and self._active < self.pace.width and next(iter(self._pieces(plan)), None):
            loop.call_soon_threadsafe(self.extend, plan)

    def abandon(self) -> None:
        """The last reader has gone: stop fetching and drop what is there, unless all of it has arrived, or soon will."""
        loop = self._loop
        if self.small is not None and self.small.busy:
            return
        if loop is not None and not loop.is_closed() and self.pid == os.getpid():
            loop.call_soon_threadsafe(self._retire)
        else:
            self._storage.fills.retired(self)

    def stop(self) -> None:
        """End it, whoever reads."""
        loop = self._loop
        if loop is not None and not loop.is_closed() and self.pid == os.getpid():
            loop.call_soon_threadsafe(self._drop)

    def let_go(self) -> SealedFile | None:
        """Refer to the finished file no more: what fetched is in reference cycles, which may live for long."""
        sealed, self.sealed = self.sealed, None
        return sealed

    def after_fork(self) -> None:
        """In a forked child: what the parent fetches is the parent's, and so are its claims."""
        if self.large is not None:
            self.large.partial = None

    async def join(self) -> None:
        """Continue on the event loop, once no thread is fetching any more."""
        if self.small is None:
            await on_loop()
        else:
            await self.small.join()

    # -- on the loop -------------------------------------------------------------------------------------------------

    async def read(self, start: int, end: int, plan: Plan | None = None) -> bytes | memoryview:
        """Bytes of one range, fetching the blocks it lacks, and then what ``plan`` wants ahead."""
        self.demand(start, end)
        if plan is not None:
            self.extend(plan)
        return await self.collect(start, end)

    def demand(self, start: int, end: int, least: int = BLOCK) -> None:
        """Begin to fetch the missing blocks of a range, ``least`` bytes or more."""
        if self.key.size <= WHOLE:
            if self.local(start, end) is not None:
                return
            start, end = 0, self.key.size
        elif end - start < least:
            start, end = start // least * least, min(-(-end // least) * least, self.key.size)
        for first, last in self.blocks.missing(start, end, LARGEST_REQUEST):
            self._request(first, last)

    def extend(self, plan: Plan) -> None:
        """Begin to fetch ahead, as far as requests and memory allow; the rest follows as requests end."""
        self._plan = None
        for first, last in self._pieces(plan):
            if self._active >= self.pace.width or not self._storage.budget.free(last - first):
                self._plan = plan
                return
            self._request(first, last)

    async def collect(self, start: int, end: int) -> bytes | memoryview:
        """Bytes of a range whose blocks are present or demanded."""
        whole: bytearray | None = None
        if (data := self.local(start, end)) is not None:
            return data
        position = start
        while position < end:
            piece = await self._piece(position, end)
            if whole is None:
                if len(piece) == end - start:
                    return piece
                whole = bytearray(end - start)
            whole[position - start : position - start + len(piece)] = piece
            position += len(piece)
        return memoryview(whole or b"")

    async def complete(self) -> None:
        """Fetch all that is missing and seal the file.

        Raises
        ------
        NoSpace
            The disk cannot hold it.
        """
        if self.small is not None:
            await self.small.finish()
        self.stored |= self._streams
        while self.sealed is None and self._sealing is None and not self.settled:
            if not self.stored:
                raise self._why_not_stored()
            if self._streams:
                self._drop_streamed()
            waiting = {one.task: one for one in self._requests.values()}
            request = max(SMALLEST_REQUEST, min(self.key.size // self.pace.width, self.pace.largest_request))
            for first, last in self.blocks.missing(0, self.key.size, request):
                if len(waiting) >= self.pace.width:
                    break
                one = self._request(first, last)
                waiting[one.task] = one
            done, _ = await asyncio.wait([task for task in waiting if task], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = waiting[task].error
                if error is not None:
                    raise error
        if self._sealing is not None:
            await asyncio.shield(self._sealing)

    def _drop_streamed(self) -> None:
        """What was read before the file was wanted lies in memory alone: it is fetched once more."""
        for request in set(self._requests.values()):
            if request.task is None or request.task.done():
                self._storage.kept.forget(request)
                self._settle(request, MISSING)

    def _why_not_stored(self) -> OSError:
        error = self.disk_error
        if error is not None and error.errno in {errno.EMFILE, errno.ENFILE}:
            return OSError(error.errno, f"{error.strerror}; the cache could not take {self.key.label}")
        return NoSpace("the cache cannot hold the whole object: raise cache.size or free disk space", self.key.label)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _pieces(self, plan: Plan) -> Iterable[tuple[int, int]]:
        """Missing ranges of a plan; none so small at its far end that it is better asked for later, with more."""
        if self.key.size <= WHOLE:
            plan = Plan(0, self.key.size, WHOLE)
        end = plan.end if self.stored else min(plan.end, plan.start + UNSTORED_WINDOW)
        near = plan.start + (end - plan.start) // 2
        for first, last in self.blocks.missing(plan.start, end, plan.request):
            if last < end or last == self.key.size or last - first >= plan.request or first < near:
                yield first, last

    def _request(self, start: int, end: int) -> Request:
        self._loop = loop = asyncio.get_running_loop()
        request = Request(start, end, loop.create_future())
        self.blocks.mark(start, end, COMING)
        for block in range(start // GRAIN, -(-end // GRAIN)):
            self._requests[block] = request
        self._active += 1
        request.task = loop.create_task(self._run(request))
        return request

    async def _run(self, request: Request) -> None:
        size = request.end - request.start
        storage, small, large = self._storage, self.small, self.large
        missing: Sequence[tuple[int, int]] | None = None
        held = False
        try:
            while request.buffer is None:
                if large is not None:
                    missing = await large.claim(request.start, request.end)
                    here = missing is None
                else:
                    here = small is not None and not await small.claim()
                if here:
                    request.arrived.set_result(None)
                    self._settle(request, MISSING)
                    return
                await storage.budget.acquire(size)
                held = True
                if large is None:
                    request.buffer = await fetched(storage, self.key, self._fetch, request.start, request.end)
                elif missing is not None:
                    request.buffer = await large.bytes(request.start, request.end, missing)
                if request.buffer is None:
                    held = False
                    storage.budget.release(size)
            self._storing += 1
            request.arrived.set_result(request.buffer)
            # The network does not wait for the disk: `budget` bounds what waits to be written.
            if large is not None:
                self.pace.arrived(size, asyncio.get_running_loop().time())
            self._active -= 1
            if self._plan is not None:
                self.extend(self._plan)
            if size == self.key.size <= WHOLE and self.stored:
                await self._keep_whole(request, request.buffer)
            elif large is not None and missing is not None and await large.store(request, missing):
                self._settle(request, PRESENT)
            else:
                self._keep(request, request.buffer)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            self._fail(request, error)
            raise
        except BaseException as error:  # noqa: BLE001 - Rust libraries raise past Exception; the waiters get it
            storage.counts.failed_fetches += 1
            self._fail(request, error)
        finally:
            if request.buffer is None:
                self._active -= 1
            else:
                self._storing -= 1
            if held:
                storage.budget.release(size)
            if large is not None:
                large.unclaim(request.start, request.end)
            elif small is not None:
                small.unclaim()
        self._next()

    def _fail(self, request: Request, error: BaseException) -> None:
        """Wake all waiters with the error; the blocks are missing again, so the next read tries anew."""
        if isinstance(error, asyncio.CancelledError):
            error = BackendError("the reader was closed while a read waited for the store", self.key.label)
        request.error = error
        self._plan = None
        self._settle(request, MISSING)
        if not request.arrived.done():
            request.arrived.set_exception(error)
            request.arrived.exception()  # a read-ahead has no waiter to take it

    def _settle(self, request: Request, state: int) -> None:
        """The request is over: its blocks are present or missing."""
        self.blocks.mark(request.start, request.end, state)
        for block in range(request.start // GRAIN, -(-request.end // GRAIN)):
            self._requests.pop(block, None)

    async def _keep_whole(self, request: Request, buffer: memoryview) -> None:
        """Write and seal an object that came in one request; its readers read the buffer until then."""
        if not await self._storage.batches.keep(self.key, buffer):
            self.stored = False
            self._keep(request, buffer)
        elif not self._storage.fills.placed(self):
            self._settle(request, MISSING)
        elif self.sealed is not None:
            self._settle(request, PRESENT)

    def keep_in_memory(self, buffer: memoryview) -> None:
        """Hold the whole object, which a thread has fetched and the cache could not take."""
        self.stored = False
        self._loop = loop = asyncio.get_running_loop()
        request = Request(0, self.key.size, loop.create_future())
        request.buffer = buffer
        request.arrived.set_result(buffer)
        for block in range(-(-self.key.size // GRAIN)):
            self._requests[block] = request
        self.blocks.mark(0, self.key.size, COMING)
        self._keep(request, buffer)
        if not self.readers:
            self._retire()

    def _keep(self, request: Request, buffer: memoryview) -> None:
        self._storage.kept.keep(request, len(buffer), lambda: self._settle(request, MISSING))

    def _next(self) -> None:
        if self._leaving:
            self._leave()
            return
        if self.sealed is not None or self.settled:
            return
        if self.blocks.complete and self._sealing is None:
            self._sealing = asyncio.get_running_loop().create_task(self._seal())
        elif self._plan is not None:
            self.extend(self._plan)
        elif not self.readers:
            self._retire()

    async def _piece(self, position: int, end: int) -> bytes | memoryview:
        """Bytes from ``position`` on, as many as one buffer or the disk has."""
        while True:
            if (sealed := self.sealed) is not None:
                return sealed.file.read(position, end - position)
            request = self._requests.get(position // GRAIN)
            if request is not None:
                buffer = request.buffer if request.buffer is not None else await asyncio.shield(request.arrived)
                if buffer is None:
                    continue
                return buffer[position - request.start : min(end, request.end) - request.start]
            file = None if self.large is None else self.large.file
            if file is not None and self.blocks.state(position) == PRESENT:
                stop = self.blocks.present_until(position, end)
                data = file.read(position, stop - position)
                if len(data) != stop - position:
                    raise Corrupt("its temporary cache file was cut short by another program", self.key.label)
                return data
            # A buffer that was dropped before we came to it.
            self.demand(position, end)

    async def _seal(self) -> None:
        assert self.large is not None
        self.sealed = await self.large.seal()
        self._storage.fills.finished(self)

    def _retire(self) -> None:
        """Drop the file if nobody reads it and bytes have not arrived; else it is used, or will soon be sealed."""
        missing = next(self.blocks.missing(0, self.key.size, GRAIN), None)
        lacking = not self.stored or missing is not None or (self._active > 0 and self.key.size > WHOLE)
        if lacking and self._sealing is None and self._storage.fills.retired(self):
            self._drop()

    def _drop(self) -> None:
        """Fetch no more; what has arrived is still written."""
        if self._sealing is not None:
            return
        for request in set(self._requests.values()):
            self._storage.kept.forget(request)
            if request.task is None or request.task.done():
                self._settle(request, MISSING)
            elif request.buffer is None:
                request.task.cancel()
        self._plan = None
        self._leaving = True
        self._leave()

    def _leave(self) -> None:
        if self._storing:
            return
        self._leaving = False
        # A reader that is still there (`stop`) reads on without the disk.
        self.stored = False
        self.blocks = BlockMap(self.key.size)
        if self.large is not None:
            self.large.leave()
