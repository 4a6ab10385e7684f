"""The end of a mount: what is pending is uploaded within a bound, while those who wait see how much is left."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Final

from rich.filesize import decimal

from fsdriver.engine import Engine
from fsdriver.runtime import spawn

from .service import notify_service

log = logging.getLogger(__name__)

TICK: Final = 1.0
"""Seconds between looks at how much is left."""
LOGGED: Final = 5.0
"""Seconds between lines of the log that say so."""
LATE_PATIENCE: Final = 5.0
"""Seconds that uploads get at least once more after it is unmounted: the last files may have been closed just before."""
EXTENSION: Final = 30
"""Seconds that the service manager is asked for, again with every look: the bound is the mount's, not TimeoutStopSec's."""
CANCEL_PATIENCE: Final = 5.0


def amount(changes: int, size: int) -> str:
    """E.g. ``3 changes (1.2 MB)``."""
    return f"{changes:,} change{'' if changes == 1 else 's'} ({decimal(size)})"


class Drain:
    """The uploads at the end of one mount.

    Parameters
    ----------
    engine : Engine
    directory : str
        The mount point, for messages.
    patience : float
        Seconds for all of them.
    """

    def __init__(self, engine: Engine, directory: str, patience: float) -> None:
        self._engine = engine
        self._directory = directory
        self._patience = patience
        self._until: float | None = None
        self._least = LATE_PATIENCE
        self._given_up = threading.Event()

    def end_within(self, seconds: float) -> None:
        """Whoever waits for the end does so no longer than that."""
        self._patience = min(self._patience, seconds)
        self._until = time.monotonic() + self._patience
        self._least = TICK

    def give_up(self) -> None:
        """Leave the rest in the journal; safe in a signal handler."""
        self._given_up.set()

    def run(self) -> str:
        """Upload what is pending; returns why not everything was, or nothing."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._patience
            patience = self._patience
        else:
            patience = max(self._least, self._until - now)
        uploads = spawn(self._engine.drain(patience))
        try:
            return self._watch(uploads, now + patience + CANCEL_PATIENCE)
        finally:
            uploads.cancel()

    def _watch(self, uploads: Future[None], end: float) -> str:
        logged = time.monotonic()
        while not self._given_up.is_set():
            if _ended(uploads):
                error = uploads.exception()
                if error is not None and not isinstance(error, OSError):
                    raise error
                return "" if error is None else str(error)
            now = time.monotonic()
            if now > end:
                return f"not everything was uploaded within {self._patience:g} s"
            left = f"uploading: {amount(*self._engine.pending())} left"
            notify_service(f"STATUS={left}", f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}")
            if now - logged >= LOGGED:
                log.info(
                    "%s: %s, for %.0f s at most; a second signal leaves them journaled",
                    self._directory,
                    left,
                    end - now,
                )
                logged = now
        return "told to end at once"


def _ended(uploads: Future[None]) -> bool:
    """Whether the uploads have ended, after a moment."""
    try:
        uploads.exception(TICK)
    except TimeoutError:
        return uploads.done()
    return True
