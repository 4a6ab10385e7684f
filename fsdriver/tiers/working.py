"""Carrying out what a stack owes, in the background: copies and removals, and what the policy wants to move.

One process a host does it for one stack: the one that holds the lock.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from fsdriver.errors import FsdriverError
from fsdriver.tiers.records import Move
from fsdriver.tiers.stack import Stack

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Between two looks at what other processes have come to owe."""
SWEEP_SECONDS: Final = 300.0
"""Between two sweeps of the policy."""
CLAIMED: Final = 256
"""Moves that are taken at a time."""
AT_ONCE: Final = 16
"""Moves under way."""


class Lock(Protocol):
    """Held by one process of the host."""

    @property
    def held(self) -> bool:
        """By this one."""

    def take(self) -> bool:
        """Take it if nobody has it."""

    def release(self) -> None:
        """Let another have it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much a worker does at a time.

    Attributes
    ----------
    at_once : int
        Moves under way.
    bytes_per_second : float
        Of all moves together.
    sweep_every : float
        Seconds between two sweeps of the policy.
    """

    at_once: int = AT_ONCE
    bytes_per_second: float = float("inf")
    sweep_every: float = SWEEP_SECONDS


class TierWorker:
    """See the module. Used on the event loop.

    Parameters
    ----------
    stack : Stack
    lock : Lock
    owner : str
        Names this process in the catalog.
    pace : Pace, optional
    """

    def __init__(self, stack: Stack, lock: Lock, owner: str, pace: Pace | None = None) -> None:
        self._stack = stack
        self._lock = lock
        self._owner = owner
        self._pace = pace or Pace()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._swept = float("-inf")
        self.swept_at = 0.0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def wake(self) -> None:
        """Something is owed: see to it, now and for as long as there is anything."""
        self._wanted.set()
        self._quiet.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(for_ever=False))

    def stay(self) -> None:
        """Look again and again, also for what other processes owe, and sweep: what a daemon does."""
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._work(for_ever=True))

    async def close(self) -> None:
        """Stop; what is owed stays owed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._lock.release()

    @property
    def busy(self) -> bool:
        """Something is being done."""
        return not self._quiet.is_set()

    async def settled(self, timeout: float | None) -> bool:
        """Wait until all that can be done now is done; whether nothing is owed then. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            await self._quiet.wait()
        return not await self._stack.owes()

    async def _work(self, *, for_ever: bool) -> None:
        while True:
            self._wanted.clear()
            self._quiet.clear()
            try:
                # A name of its own: what an earlier round had claimed and not done is abandoned, too.
                left = await self._round(f"{self._owner}-{secrets.token_hex(8)}", sweep=for_ever)
            except FsdriverError as error:
                log.warning("%s: what tiers owe is seen to later: %s", self._stack.identity, error)
                left = True
            except Exception:
                log.exception("%s: what tiers owe is seen to later", self._stack.identity)
                left = True
            if not self._wanted.is_set():
                self._quiet.set()
            if not (left or for_ever):
                self._lock.release()
                if self._quiet.is_set():
                    return
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _round(self, owner: str, *, sweep: bool) -> bool:
        """Do what can be done now; whether anything is left for later."""
        await self._stack.note_uses()
        await self._stack.take_stock()
        if not self._lock.held and not self._lock.take():
            return False  # it is another's
        if sweep and time.monotonic() - self._swept >= self._pace.sweep_every:
            self._swept = time.monotonic()
            await self.sweep()
        await self._carry_out_moves(owner)
        await self._stack.remover.remove_all()
        return await self._stack.owes()

    async def sweep(self) -> int:
        """Owe what the policy wants to move; how many moves are new."""
        self.swept_at = time.time()
        await self._stack.note_uses(at_once=True)
        new, some = 0, list[Move]()
        async with aclosing(self._stack.wanted(time.time())) as wanted:
            async for move in wanted:
                some.append(move)
                if len(some) == CLAIMED:
                    new += await self._stack.catalog.owe(self._stack.identity, some)
                    some = []
        return new + await self._stack.catalog.owe(self._stack.identity, some)

    async def _carry_out_moves(self, owner: str) -> None:
        catalog, stack = self._stack.catalog, self._stack.identity
        while moves := await catalog.claim_moves(stack, owner, time.time(), CLAIMED):
            rest = iter(moves)
            await asyncio.gather(*(self._carry_out(rest) for _ in range(self._pace.at_once)))

    async def _carry_out(self, moves: Iterator[Move]) -> None:
        for move in moves:
            began = time.monotonic()
            await self._stack.mover.carry_out(move)
            due = move.size * self._pace.at_once / self._pace.bytes_per_second
            await asyncio.sleep(max(0.0, due - (time.monotonic() - began)))
