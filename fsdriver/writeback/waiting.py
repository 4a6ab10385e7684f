"""Those who wait until a store has what is owed to it, and what they are told when it does not take it; pauses between looks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from fsdriver.errors import ContainerMissing, FsdriverError, Stale, TimedOut, Unreachable
from fsdriver.writeback.outgoing import UploadCounters

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between looks at what is owed, while the uploader is of this process and tells."""
OTHERS_POLL: Final = 0.05
"""Longest time in seconds between looks at what another process, which has the lock, has carried out."""

SETTLE_DELAY: Final = 0.004
"""Seconds that uploads which are done wait for others, to be written down together, while nobody waits for one of them."""
SETTLE_MOST: Final = 0.1
"""The same, where writing down takes long: it waits for the disk."""
LOOKING: Final = 0.05
"""Share of the time that looks which find too little may take."""
LOOKING_AWAITED: Final = 0.5
"""The same, while somebody waits."""

OUT_OF_REACH: Final = (Unreachable, TimedOut, ContainerMissing)
"""Failures that are of the store rather than of one key: nothing else would fare better."""


class Looks:
    """Pauses between looks at the journal that find less than they want: each reads all rows that cannot be carried out now.

    Looking takes longer the more rows there are; with the pauses it stays a small part of the time.

    Parameters
    ----------
    most : float
        Seconds of the longest pause.
    clock : callable
        Seconds that only rise.
    """

    def __init__(self, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._next = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next look is due; 0 if it is now."""
        return max(0.0, self._next - self._clock())

    @contextlib.contextmanager
    def look(self, *, awaited: bool = False) -> Iterator[None]:
        """Around a look, and before the pause that follows it; ``awaited``: somebody waits for what it may find."""
        began = self._clock()
        yield
        now = self._clock()
        self._next = now + min(self._most, (now - began) / (LOOKING_AWAITED if awaited else LOOKING))

    def again(self) -> None:
        """The last look found all it wanted, or what could not be carried out may be now."""
        self._next = 0.0


class Waiters:
    """See the module. Used on the event loop, but for `forget` and what it counts.

    Parameters
    ----------
    counters : UploadCounters
    """

    def __init__(self, counters: UploadCounters) -> None:
        self._counters = counters
        self._errors: dict[str, FsdriverError] = {}
        self._progress = asyncio.Condition()
        self._all = 0
        self._draining = 0

    def __bool__(self) -> bool:
        """Somebody waits."""
        return self._all > 0

    @property
    def drain(self) -> bool:
        """Somebody waits for all there is."""
        return self._draining > 0

    @property
    def only_drain(self) -> bool:
        """Nobody waits for anything else: nothing of it is more urgent than the rest."""
        return self._all <= self._draining

    async def wait(
        self,
        owed: Callable[[], bool],
        keys: Callable[[str], bool],
        timeout: float | None,
        *,
        drain: bool,
        uploads_here: Callable[[], bool],
        busy: Callable[[], bool],
    ) -> None:
        """See `Uploader.wait`.

        Parameters
        ----------
        uploads_here : callable
            Whether this process carries out what is owed.
        busy : callable
            Whether anything is sent now, or about to be.
        """
        self._all += 1
        self._draining += drain
        pause = 0.001
        conflict: Stale | None = None
        try:
            async with _deadline(timeout), self._progress:
                while True:
                    more = owed()
                    for key, error in list(self._errors.items()):
                        # A conflict is settled by keeping both versions: nothing is owed, and it is told once.
                        if keys(key) and isinstance(error, Stale):
                            del self._errors[key]
                            conflict = conflict or error
                        elif keys(key) and more and (not drain or isinstance(error, OUT_OF_REACH) or not busy()):
                            raise error
                    if conflict is not None and not (more and drain):
                        raise conflict
                    if not more:
                        break
                    # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK if uploads_here() else pause):
                            await self._progress.wait()
                    pause = min(2 * pause, OTHERS_POLL)
        finally:
            self._all -= 1
            self._draining -= drain

    def forget(self, key: str) -> None:
        """No error is known of a key: a new try of it begins, or has ended well."""
        self._errors.pop(key, None)

    def forget_failures(self) -> None:
        """New tries of all keys begin; conflicts stay to be told."""
        self._errors = {key: error for key, error in self._errors.items() if isinstance(error, Stale)}

    def lost(self, key: str, error: Stale) -> None:
        """Another writer changed a key first; whoever waits for it is told."""
        self._errors[key] = error

    def failed(self, key: str, error: FsdriverError) -> None:
        """What is owed for a key, or for a directory as ``<root>|<directory>``, was not taken, and will be tried again."""
        self._errors[key] = error
        self._counters.failures += 1
        self._counters.last_error = str(error)
        log.warning("not uploaded, will be tried again: %s", error)

    async def advanced(self) -> None:
        """Whoever waits looks again."""
        async with self._progress:
            self._progress.notify_all()


@contextlib.asynccontextmanager
async def _deadline(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        if isinstance(error, TimedOut):
            raise
        message = f"the tiers do not have it after {seconds:g} s; it stays journaled and is sent when they answer"
        raise TimedOut(message) from error
