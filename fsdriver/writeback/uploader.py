"""Carrying out what the journal owes to one store.

One process a store uploads: whoever holds flock on ``uploader-<digest>.lock`` in the state directory. All others enqueue; when
the holder ends, the next one with pending work takes over. Uploads never trust that a staging file stands still: its
signature is taken before and after, and a file that moved is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from fsspec.asyn import get_loop

from fsdriver.backends.retry import RetryPolicy
from fsdriver.backends.store import Store
from fsdriver.cache import DiskCache
from fsdriver.errors import AccessDenied, ContainerMissing, FsdriverError, ReadOnly, Stale, Unsettled
from fsdriver.runtime import on_loop
from fsdriver.writeback.flushing import AttributeStore, Flusher
from fsdriver.writeback.immediate import ImmediateSender
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.keeping import FETCHED_UNASKED, Keeper
from fsdriver.writeback.leftovers import abort_uploads, take_over
from fsdriver.writeback.lock import UploaderLock
from fsdriver.writeback.outgoing import Outgoing, Sent
from fsdriver.writeback.pending import STILL_READ, Action, Pending
from fsdriver.writeback.powerloss import LateSync
from fsdriver.writeback.sealing import Sealer
from fsdriver.writeback.sending import GivenUp, Sender, local_failure
from fsdriver.writeback.settling import Settler
from fsdriver.writeback.staging import Staging
from fsdriver.writeback.waiting import SETTLE_DELAY, SETTLE_MOST, Looks, Waiters

log = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 16
REFILL: Final = MAX_IN_FLIGHT // 2
"""Uploads under way at which more are begun: several at a time cost one transaction."""
THREADS: Final = 8
"""Threads that send small rows, `TOGETHER` at a time."""
TOGETHER: Final = 2
QUIET: Final = 0.02
"""Seconds without a change after which uploads begin: until then the processor is left to who makes the changes."""
YIELDED_MOST: Final = 2.0
"""Seconds of changes without a pause after which uploads begin all the same, a few at a time."""
IN_FLIGHT_WHILE_BUSY: Final = 4
IDLE_POLL: Final = 1.0
"""Seconds between looks for what other processes enqueued."""
CLOSE_PATIENCE: Final = 5.0
"""Seconds that uploads under way get to end; one cut off later may or may not have reached the store, and stays marked so."""
UNSETTLED_DELAY: Final = 0.25
"""Seconds before another attempt to send a file that was written to during the one before."""
LATER: Final = RetryPolicy(base=0.5, cap=60.0)
"""When a row that failed is tried again, unless the store was out of reach: then as soon as that answers."""
UNEXPECTED_DELAY: Final = 60.0
"""Seconds before a row is tried again that failed in a way which should not be."""
PERMANENT: Final = (AccessDenied, ContainerMissing, ReadOnly)


class Uploader:
    """See the module.

    Parameters
    ----------
    backend : Store
    journal : Journal
    staging : Staging
    cache : DiskCache
        Uploaded files are sealed into it.
    state_dir : Path
        Holds the lock.
    on_done : callable
        Called on the loop as ``on_done(row, version)`` after a key was carried out; version "" when it was deleted.
    on_conflict : callable
        Called as ``on_conflict(row)`` after a foreign writer won.
    make_route : callable
        Called as ``make_route(root)`` for a key prefix that none of this process's routes has: another process enqueued.
    """

    def __init__(
        self,
        backend: Store,
        journal: Journal,
        staging: Staging,
        cache: DiskCache,
        state_dir: Path,
        on_done: Callable[[Pending, str], None],
        on_conflict: Callable[[Pending], None],
        make_route: Callable[[str], AttributeStore],
    ) -> None:
        self.backend = backend
        self.journal = journal
        self.staging = staging
        self._outgoing = Outgoing(backend, journal, staging)
        self._sender = Sender(self._outgoing)
        self._immediate = ImmediateSender(self._outgoing)
        self.sealer = Sealer(backend.identity, journal, staging, cache)
        self.keeper = Keeper(backend.identity, cache)
        self.counters = self._outgoing.counters
        self.routes: dict[str, AttributeStore] = {}
        self._settler = Settler(journal, staging, self.sealer, self.counters, self.routes, on_done, on_conflict)
        self.waiters = Waiters(self.counters)
        self.flusher = Flusher(backend.identity, journal, self.routes, make_route, self.waiters, self.spawn)
        self.lock = UploaderLock(state_dir, backend.identity)
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._copied_from: dict[str, str] = {}
        self._flushes: set[asyncio.Task[None]] = set()
        self._awake = False
        self._changed_at = 0.0
        self._asked_at = 0.0
        self._yielding_since: float | None = None
        self._sent: list[Sent] = []
        self._at_once: set[Future[None]] = set()
        self._under_way = 0
        self._looks = Looks(IDLE_POLL)
        self._settling = Looks(SETTLE_MOST)
        self._late_sync = LateSync(backend.identity, journal, staging, self.spawn)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fsdriver-upload")
        backend.outage.on_return(self._store_returned)

    # -- life --------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is work; callable from any thread, and cheap while the uploader knows already."""
        self._changed_at = time.monotonic()
        if not self._awake and (loop := get_loop()).is_running():
            self._awake = True
            loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._wake is None:
            self._wake = asyncio.Event()
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work())
        self._wake.set()

    async def close(self) -> None:
        """Begin nothing new, let what is under way end, and stop; what is not done stays journaled."""
        await on_loop()
        self._closed = True
        if self._task is not None and self._wake is not None:
            self._wake.set()
            await asyncio.gather(self._task, return_exceptions=True)
        if under_way := self._running | self._flushes:
            _, late = await asyncio.wait(under_way, timeout=CLOSE_PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._at_once:
            await asyncio.wait([asyncio.wrap_future(one) for one in list(self._at_once)], timeout=CLOSE_PATIENCE)
        self._settle_sent()
        self._threads.shutdown(wait=False)
        self.lock.release()

    def _recover(self) -> None:
        """Nobody uploaded to this store: end what a dead process left, and begin where it was."""
        take_over(self.backend, self.journal, self.staging)
        self.spawn(abort_uploads(self.backend, self.journal))

    def lose_lock(self) -> None:
        """In a forked child: the lock is the parent's, and must not outlive it here."""
        self.lock.release()

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def wait(
        self,
        owed: Callable[[], bool],
        keys: Callable[[str], bool],
        timeout: float | None = None,
        *,
        drain: bool = False,
    ) -> None:
        """Wait until ``owed()`` is False; ``drain``: it is about all there is, so that nothing is to be put off.

        What failed before is then tried again now, and what fails holds up nothing else, unless the store is out of reach.

        Raises
        ------
        FsdriverError
            The last failure of a key that ``keys`` selects; its bytes stay journaled and are tried again later.
        TimedOut
            It took longer than ``timeout`` seconds; what is owed stays journaled.
        """
        await on_loop()
        if drain:
            self._asked_at = time.monotonic()
            self.waiters.forget_failures()
            self.journal.retry_now(self.backend.identity)
            self.flusher.retry_now()
        self._begin()
        await self.waiters.wait(
            owed, keys, timeout, drain=drain, uploads_here=lambda: self.lock.held, busy=self._is_busy
        )

    def _is_busy(self) -> bool:
        under_way = self._under_way or self._sent or self.flusher.sending
        return bool(under_way or self.journal.ready(self.backend.identity, time.time(), 1))

    # -- work --------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        assert self._wake is not None
        while not self._closed:
            self._wake.clear()
            if self.lock.held:
                self._sender.give_up_superseded()
                self._late_sync.look()
            if self._in_the_way(time.monotonic()):
                await self._wait_for_work(QUIET)
                continue
            self._awake = False
            self.staging.remove_left(self.journal.uses)
            if self.lock.take():
                self._recover()
            if self.lock.held and (self.waiters or not self.backend.outage.active):
                self.sealer.seal_left()
                most = MAX_IN_FLIGHT if self._yielding_since is None else IN_FLIGHT_WHILE_BUSY
                self._send(most - self._under_way)
                self._look_at_attributes()
            self.flusher.remove_marks(draining=self.waiters.drain)
            await self._wait_for_work(self._looks.pause or IDLE_POLL)

    def _store_returned(self) -> None:
        """The store was out of reach: what waits for another try goes now."""
        if not self._closed:
            self.journal.retry_now(self.backend.identity)
            self.flusher.retry_now()
            self._begin()

    def _in_the_way(self, now: float) -> bool:
        """Whether uploading would only slow down who is making changes: nobody waits for it yet."""
        if self.waiters or now - self._changed_at >= QUIET:
            self._yielding_since = None
            return False
        if self._yielding_since is None:
            self._yielding_since = now
        return now - self._yielding_since < YIELDED_MOST

    def _look_at_attributes(self) -> None:
        pause = self.flusher.look(sending=bool(self._running), draining=self.waiters.drain)
        if pause is not None:
            asyncio.get_running_loop().call_later(pause, self._begin)

    async def _wait_for_work(self, seconds: float) -> None:
        assert self._wake is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _send(self, most: int) -> None:
        """Begin carrying out rows, oldest first."""
        if most <= 0 or self._looks.pause:
            return
        with self._looks.look(awaited=bool(self.waiters)), self.journal.transaction():
            rows = self.journal.claim(self.backend.identity, time.time(), most, self._sources())
            self._copied_from.update({row.key: row.source for row in rows if row.source is not None})
        if len(rows) == most:
            self._looks.again()
        self._under_way += len(rows)
        small: list[Pending] = []
        for row in rows:
            if self.backend.immediate and self._immediate.is_small(row):
                small.append(row)
            else:
                self._spawn(self._running, self._carry_out(row))
        for at in range(0, len(small), TOGETHER):
            self._spawn(self._running, self._carry_out_together(small[at : at + TOGETHER]))

    def _sources(self) -> Collection[str]:
        """Keys that copies under way read from."""
        return set(self._copied_from.values())

    def carry_out_now(self, key: str) -> bool:
        """Carry out what one key owes in this thread, which waits for it; not on the event loop.

        Returns
        -------
        bool
            False: something is still owed for the key. The event loop carries it out, and knows of errors.
        """
        if not self.lock.held or self._closed or not self.backend.immediate:
            return False
        with self.journal.transaction():
            spared = key in self._sources() or self.keeper.needed(key)
            row = None if spared else self.journal.claim_one(self.backend.identity, key, time.time())
            if row is None:
                return False
            ended: Future[None] = Future()
            self._at_once.add(ended)
            if row.source is not None:
                self._copied_from[key] = row.source
        sent: Sent | None = None
        try:
            sent = self._immediate.send(row)
            if sent is None:
                return False
            self.waiters.forget(key)
            self._copied_from.pop(key, None)
            return bool(self._settler.settle([sent]))
        finally:
            self._at_once.discard(ended)
            ended.set_result(None)
            if sent is None:
                get_loop().call_soon_threadsafe(self._take_over, row)
            elif self.waiters:
                get_loop().call_soon_threadsafe(lambda: self.spawn(self.waiters.advanced()))

    def _take_over(self, row: Pending) -> None:
        self._begin()
        self._under_way += 1
        self._spawn(self._running, self._carry_out(row, doubtful=True))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that `close` waits for."""
        self._spawn(self._flushes, work)

    def _spawn(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(partial(self._ended, tasks))

    def _ended(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        self._looks.again()  # what waited for it may go now
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("uploading failed in an unexpected way", exc_info=error)
        if self._wake is not None and self._under_way <= REFILL:
            self._wake.set()

    def is_spared(self, row: Pending) -> bool:
        """A removal that nobody waits for: it follows the last close of who reads the file."""
        if row.error == STILL_READ:
            return not self.lock.held or bool(self.keeper.needed(row.key))
        if row.action is not Action.DELETE or not row.key.endswith("/"):
            return False
        # A directory goes after what was in it.
        inside = self.journal.below(row.store, row.key)
        return len(inside) > 1 and all(one.key == row.key or self.is_spared(one) for one in inside)

    async def _keep_for_readers(self, row: Pending) -> bool:
        """Before the store loses what open files read: fetch it. False: the row waits until they are closed."""
        needed = () if row.source == row.key else self.keeper.needed(row.key)
        if not needed:
            return True
        removal = row.action is Action.DELETE
        if (removal and sum(one.size for one in needed) > FETCHED_UNASKED) or not await self.keeper.keep(row.key):
            if removal:
                self.journal.put_off(row, time.time() + IDLE_POLL, STILL_READ)
                return False
            self.keeper.give_up(row.key)
        current = self.journal.get(row.store, row.key)
        if current is None or current.seq != row.seq:
            raise GivenUp(row.base)
        return True

    async def _carry_out_together(self, rows: Sequence[Pending]) -> None:
        """Carry out small rows one after the other in a thread: rounds of the loop cost more than their requests."""
        tried = await asyncio.get_running_loop().run_in_executor(self._threads, self._try, rows)
        for row, sent in tried:
            if sent is None:
                self._spawn(self._running, self._carry_out(row, doubtful=True))
            else:
                self._under_way -= 1
                self._done(sent)

    def _try(self, rows: Sequence[Pending]) -> Sequence[tuple[Pending, Sent | None]]:
        return [(row, None if self.keeper.needed(row.key) else self._immediate.send(row)) for row in rows]

    def _done(self, sent: Sent) -> None:
        """A row was carried out; it is written down with others."""
        self.waiters.forget(sent.row.key)
        self._copied_from.pop(sent.row.key, None)
        if not self._sent:
            self.spawn(self._settle_soon())
        self._sent.append(sent)

    async def _carry_out(self, row: Pending, *, doubtful: bool = False) -> None:
        began = time.monotonic()
        try:
            if not await self._keep_for_readers(row):
                await self.waiters.advanced()
                return
            version, sealed = await self._sender.send(row, doubtful=doubtful)
        except Stale:
            if await self._sender.was_interrupted(row):
                return
            stands = row.action is Action.COPY and await self._sender.source_stands(row)
            outcome = self._settler.conflict(row, source_stands=stands)
            self.waiters.lost(row.key, Stale(f"another writer changed it first; {outcome}", row.path))
        except GivenUp as cut:
            self._settler.give_up(row, cut.stored)
        except Unsettled as error:
            self.journal.put_off(row, time.time() + UNSETTLED_DELAY, error.message)
        except (FsdriverError, OSError) as error:
            known = error if isinstance(error, FsdriverError) else local_failure(row, error)
            delay = 60.0 if isinstance(error, PERMANENT) else LATER.delay(row.attempts + 1)
            if began < self._asked_at:
                # It says nothing of how things are since somebody asked for it.
                delay = 0.0
            replaced = await self._stored_after(row)
            if replaced is not None:
                self._settler.give_up(row, *replaced)
            elif self.journal.postpone(row, time.time() + delay, str(known)) and delay:
                self.waiters.failed(row.key, known)
        except Exception as error:
            # Whatever it was: a row that stayed marked as under way would never be tried again.
            log.exception("%s: uploading failed in an unexpected way", row.path)
            self.journal.postpone(row, time.time() + UNEXPECTED_DELAY, repr(error))
        else:
            self._done(Sent(row, version, sealed, carried=self._outgoing.carries(row)))
            return
        finally:
            self._under_way -= 1
            self._copied_from.pop(row.key, None)
        await self.waiters.advanced()

    async def _stored_after(self, row: Pending) -> tuple[str | None] | None:
        """An upload failed: what the store has now (see `Sender.stored_after`), if the row was replaced meanwhile."""
        if row.action is not Action.PUT or (now := self.journal.get(row.store, row.key)) is None or now.seq == row.seq:
            return None
        return (await self._sender.stored_after(row, row.size, self._outgoing.metadata(row)),)

    async def _settle_soon(self) -> None:
        await asyncio.sleep(max(SETTLE_DELAY, self._settling.pause) if self.waiters.only_drain else 0)
        self._settle_sent()
        await self.waiters.advanced()

    def _settle_sent(self) -> None:
        sent, self._sent = self._sent, []
        try:
            with self._settling.look(awaited=True):
                self._settler.settle(sent)
        except OSError as error:
            # The store has it, but the journal cannot be told: what is not written down stays marked as under way.
            self._sent = sent + self._sent
            log.warning("what was uploaded cannot be noted, will be tried again: %s", error)
            if not self._closed:
                asyncio.get_running_loop().call_later(IDLE_POLL, lambda: self.spawn(self._settle_soon()))
