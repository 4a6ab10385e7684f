"""Many pieces of work, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import TypeVar

W = TypeVar("W")
R = TypeVar("R")


def in_flight(work: Iterable[W], submit: Callable[[W], Future[R]], most: int) -> Iterator[tuple[W, Future[R]]]:
    """Submit pieces of work, at most ``most`` at a time; yields each when it is done, with its future.

    What is under way when the caller stops iterating, or is interrupted, is cancelled where it has not begun.
    """
    rest = iter(work)
    running: dict[Future[R], W] = {}
    try:
        while True:
            for piece in islice(rest, most - len(running)):
                running[submit(piece)] = piece
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future
    finally:
        for future in running:
            future.cancel()
