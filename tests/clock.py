"""A clock that stands still unless a test moves it."""

from __future__ import annotations


class Clock:
    """Called as `time.monotonic` or `time.time` would be."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
