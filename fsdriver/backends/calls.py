"""How every request of a backend is made: under a deadline, tried again while that can help, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, TypeVar

from fsdriver.backends.model import Counters
from fsdriver.backends.outage import Outage
from fsdriver.errors import AccessDenied, BackendError, ContainerMissing, FsdriverError, NotFound, Stale, TimedOut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fsdriver.backends.retry import RetryPolicy

T = TypeVar("T")

RENEWED_PAUSE: Final = 0.2
"""Seconds until a request is made again with new credentials: obstore keeps those it has for a tenth of a second."""
RESERVED: Final = 2
"""Slots that transfers leave to other operations."""
_UNBOUNDED: Final = contextlib.nullcontext()


class Calls:
    """Identity of a store, its retry policy and its counters.

    Parameters
    ----------
    scheme : str
        URL scheme, e.g. ``"s3"``.
    location : str
        Endpoint or account: with scheme and container the identity of the store (cache key, journal).
    container : str
        Bucket; empty where there is none.
    retry : RetryPolicy
        Attempts, back-off and deadline of one operation.
    slots : int, optional
        Most operations at a time; the others wait, and their deadline begins after that. `RESERVED` of them are kept from
        those that carry contents: names are answered although every transfer waits for a store that is stuck.
    """

    def __init__(
        self, scheme: str, location: str, container: str, retry: RetryPolicy, *, slots: int | None = None
    ) -> None:
        self.scheme = scheme
        self.location = location
        self.container = container
        self.retry = retry
        self.counters = Counters()
        self.outage = Outage(self.identity, lambda: self._check(""), retry)
        self._slots = contextlib.nullcontext() if slots is None else asyncio.Semaphore(slots)
        transfers = None if slots is None or slots <= 2 * RESERVED else slots - RESERVED
        self._transfers = contextlib.nullcontext() if transfers is None else asyncio.Semaphore(transfers)

    @property
    def identity(self) -> str:
        """``scheme|location|container``: equal for two handles on one store, whatever their credentials."""
        return f"{self.scheme}|{self.location}|{self.container}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.identity}>"

    def is_temporary(self, error: BaseException) -> bool:
        """Whether the same request may succeed if simply tried again."""
        return isinstance(error, BackendError) and error.temporary

    async def _check(self, prefix: str) -> None:
        """One small request, to see whether the store answers for keys under ``prefix``."""

    async def _call(
        self,
        operation: str,
        key: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        size: int = 0,
        transfer: bool = False,
        reads: bool = False,
    ) -> T:
        """Run ``attempt`` under the retry policy; ``size`` bytes travel with it and extend the deadline.

        ``transfer``: it carries the contents of a file, and leaves the reserved slots to others. ``reads``: it changes
        nothing, so that an attempt without an answer is given up while there is time for another.
        """
        policy, limit = self.retry, self.retry.limit(size)
        patience = policy.patience(size) if reads else None
        try:
            async with self._transfers if transfer else _UNBOUNDED, self._slots, asyncio.timeout(limit):
                return await self._attempts(operation, attempt, patience)
        except BackendError as error:
            self.counters.errors += 1
            if error.temporary or isinstance(error, ContainerMissing):
                self.outage.suspect()
            raise
        except TimeoutError as error:
            self.counters.errors += 1
            self.outage.suspect()
            where = self.location or self.scheme
            raise TimedOut(
                f"{operation} at {where} was not done after {limit:.3g} s; raise 'timeout' of this backend "
                f"(now {policy.deadline:g} s) if the service is that slow",
                key or self.container,
            ) from error

    async def _renew(self, since: float) -> bool:
        """A request that began at ``since`` was denied: whether there are other credentials to try it with, once."""
        return False

    async def _attempts(self, operation: str, attempt: Callable[[], Awaitable[T]], patience: float | None) -> T:
        policy = self.retry
        began, failures, renewed = policy.clock(), 0, False
        while True:
            self.counters.count(operation)
            since = time.monotonic()
            try:
                result = await self._attempt(operation, attempt, patience)
            except (NotFound, Stale):
                self.outage.answered()
                raise
            except BackendError as error:
                if isinstance(error, AccessDenied) and not renewed and await self._renew(since):
                    renewed = True
                    self.counters.retries += 1
                    await policy.sleep(RENEWED_PAUSE)
                    continue
                failures += 1
                wait = policy.delay(failures, error.retry_after)
                out_of_time = policy.clock() - began + wait >= policy.deadline
                if not self.is_temporary(error) or failures >= policy.attempts or out_of_time:
                    raise
            else:
                self.outage.answered()
                return result
            self.counters.retries += 1
            await policy.sleep(wait)

    async def _attempt(self, operation: str, attempt: Callable[[], Awaitable[T]], patience: float | None) -> T:
        try:
            async with asyncio.timeout(patience):
                return await attempt()
        except TimeoutError as error:
            if isinstance(error, TimedOut):
                raise
            where = self.location or self.scheme
            raise TimedOut(f"{where} gave no answer to {operation} within {patience:.3g} s", self.container) from error

    async def _call_write(
        self,
        operation: str,
        key: str,
        attempt: Callable[[], Awaitable[T]],
        own: Callable[[], Awaitable[T | None]],
        *,
        size: int = 0,
        unanswered: bool = False,
        transfer: bool = False,
    ) -> T:
        """`_call` for a conditional write: an attempt that failed without an answer may have been carried out.

        If a later attempt then fails for good (its condition is lost, its upload gone), ``own`` tells whether what is
        there is what we wrote. It runs inside this operation's deadline and slot.
        """

        async def careful() -> T:
            nonlocal unanswered
            try:
                return await attempt()
            except FsdriverError as error:
                if self.is_temporary(error):
                    unanswered = True
                    raise
                result = await own() if unanswered else None
                if result is None:
                    raise
                return result

        return await self._call(operation, key, careful, size=size, transfer=transfer)
