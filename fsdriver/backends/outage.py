"""Whether a store is out of reach, and when it is back: found out by one small request now and then, not by those that matter."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from fsdriver.errors import BackendError, ContainerMissing, FsdriverError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fsdriver.backends.retry import RetryPolicy

PROBE_PATIENCE: Final = 5.0
"""Seconds within which a store answers a small request, unless it is out of reach."""

_log = logging.getLogger("fsdriver.backends")


class Outage:
    """One store, watched from when a request to it has failed until it answers. Used on the event loop, but for `answered`.

    Parameters
    ----------
    name : str
        Of the store, for the log.
    probe : callable
        One small request, without retries.
    policy : RetryPolicy
        Waits between probes as between attempts (full jitter, at most ``cap``).

    Attributes
    ----------
    active : bool
        The last probe failed, and nothing was answered since.
    since : float
        When that began (`time.time`); 0.0 while the store answers.
    count : int
        Outages so far.
    """

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]], policy: RetryPolicy) -> None:
        self._name = name
        self._probe = probe
        self._policy = policy
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.Task[None] | None = None
        self._began = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self.active = False
        self.since = 0.0
        self.count = 0

    def on_return(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` on the event loop whenever the store answers again."""
        self._listeners.append(listener)

    def tell_return(self) -> None:
        """Call the listeners."""
        for listener in self._listeners:
            listener()

    def suspect(self) -> None:
        """A request failed, or waits for long: find out whether the store is there at all."""
        if self._watch is None or self._watch.done():
            self._loop = asyncio.get_running_loop()
            self._watch = self._loop.create_task(self._look())

    def answered(self) -> None:
        """A request succeeded; from any thread."""
        if self.active and self._loop is not None:
            self.active = False
            self._loop.call_soon_threadsafe(self._end)

    async def began(self) -> None:
        """Wait until the store is known to be out of reach."""
        await self._began.wait()

    def close(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()

    async def _look(self) -> None:
        failures = 0
        while await self._fails():
            if not self.since:
                self._begin()
            elif not self.active:
                return  # something else was answered: the end is on its way
            failures += 1
            await self._policy.sleep(self._policy.delay(failures))
        self._end()

    async def _fails(self) -> bool:
        try:
            async with asyncio.timeout(min(PROBE_PATIENCE, self._policy.deadline)):
                await self._probe()
        except BackendError as error:
            return error.temporary or isinstance(error, ContainerMissing)
        except FsdriverError:
            return False
        except TimeoutError:
            return True
        return False

    def _begin(self) -> None:
        self.active, self.since = True, time.time()
        self.count += 1
        self._began.set()
        _log.warning(
            "%s is out of reach: what is known of it is served, what is owed to it waits until it answers", self._name
        )

    def _end(self) -> None:
        if not self.since:
            return
        _log.warning("%s answers again after %.0f s", self._name, time.time() - self.since)
        self.active, self.since = False, 0.0
        self._began.clear()
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
        self.tell_return()
