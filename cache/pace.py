"""How a store is best asked, found by watching how it answers: requests at a time, and gaps worth fetching."""

from __future__ import annotations

import logging
from typing import Final

from .readahead import LARGEST_REQUEST, LARGEST_WINDOW, REQUESTS_AHEAD

FEWEST: Final = REQUESTS_AHEAD
MOST: Final = 16
GAP: Final = 1 << 20
"""Until something is measured: 20 ms of latency at 50 MB/s of a connection."""
WIDEST_GAP: Final = 8 << 20
NARROWEST_GAP: Final = 64 << 10

_GAIN: Final = 1.25
"""What twice as many requests must bring, to be worth what each of them costs."""
_LOSS: Final = 0.9
"""What half as many may lose."""
_SETTLE: Final = LARGEST_WINDOW
"""Bytes that arrive before a change of the number shows in the rate."""
_MEASURE: Final = LARGEST_WINDOW
_PATIENCE: Final = 32
"""Measurements until what was found is put to the test again."""
_SHORT: Final = 64 << 10
"""Bytes of a request whose time is all latency."""
_LONG: Final = 1 << 20
"""Bytes of a request whose time is mostly transfer."""
_PAUSE: Final = 2.0
"""Seconds without bytes after which nobody reads; a reader that is slow all the time gains nothing by more requests."""
_WEIGHT: Final = 0.2
"""Of the newest request in the averages."""

_log = logging.getLogger("fsdriver.cache")


class Pace:
    """One store, as this process sees it. Used on the event loop only.

    A window of 32 MiB is fetched in 4 requests of 8 MiB, or in 8 or 16 smaller ones where that is faster: with stores
    that give each connection a fixed rate, as S3 does, it is; where the network or the processor is the limit, it is not.
    The number is doubled on trial, and stays so if a quarter more bytes arrive in the same time.

    Parameters
    ----------
    store : str
        Identity of the backend, for the log.

    Attributes
    ----------
    width : int
        Requests at a time for one object.
    """

    def __init__(self, store: str) -> None:
        self.width = FEWEST
        self._store = store
        self._latency: float | None = None
        self._transfer: float | None = None
        self._settled = _SETTLE - LARGEST_REQUEST
        self._begun: float | None = None
        self._bytes = 0
        self._latest = 0.0
        self._tried_from: tuple[int, float] | None = None
        self._rest = 0
        self._upwards = True

    @property
    def largest_request(self) -> int:
        """Bytes of one request of a stream."""
        return LARGEST_REQUEST * FEWEST // self.width

    @property
    def gap(self) -> int:
        """Bytes between two ranges that come in the time that one more request takes."""
        if self._latency is None or self._transfer is None:
            return GAP
        return min(max(NARROWEST_GAP, int(self._latency * self._transfer)), WIDEST_GAP)

    def answered(self, size: int, seconds: float) -> None:
        """One request of ``size`` bytes took so long."""
        if size <= _SHORT:
            self._latency = _average(self._latency, seconds)
        elif size >= _LONG:
            beyond = seconds - (self._latency or 0.0)
            if beyond > 0:
                self._transfer = _average(self._transfer, size / beyond)

    def arrived(self, size: int, now: float) -> None:
        """Bytes of large objects arrived at ``now`` seconds."""
        pause, self._latest = now - self._latest, now
        if pause > _PAUSE:
            self._begun = None
        if self._settled < _SETTLE:
            self._settled += size
            return
        if self._begun is None:
            self._begun, self._bytes = now, 0
            return
        self._bytes += size
        if self._bytes >= _MEASURE and now > self._begun:
            rate, self._begun = self._bytes / (now - self._begun), None
            self._measured(rate)

    def _measured(self, rate: float) -> None:
        if self._tried_from is not None:
            before, old = self._tried_from
            self._tried_from = None
            if rate < old * (_GAIN if self.width > before else _LOSS):
                self._set(before)
                self._rest = _PATIENCE
                return
            _log.info("%s: %d requests at a time, %.0f MB/s", self._store, self.width, rate / 1e6)
        elif self._rest:
            self._rest -= 1
            if self._rest:
                return
            self._upwards = not self._upwards
        target = self.width * 2 if self._upwards else self.width // 2
        if FEWEST <= target <= MOST:
            self._tried_from = self.width, rate
            self._set(target)
        else:
            self._rest = _PATIENCE

    def _set(self, width: int) -> None:
        self.width = width
        self._settled = 0


def _average(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)
