"""Asking a store that may be out of reach, for what may be known from before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fsdriver.backends.outage import Outage
from fsdriver.errors import BackendError, ContainerMissing

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds without an answer after which it is found out whether the store is there at all."""


async def ask_or_recall(outage: Outage, ask: Coroutine[Any, Any, T], recall: Callable[[], T]) -> T:
    """What the store says; what is known from before if the store is out of reach. On the event loop.

    Parameters
    ----------
    outage : Outage
        Of the store.
    ask : coroutine
        Asks it.
    recall : callable
        Gives what is known from before, or raises that nothing is there.
    """
    if outage.active:
        ask.close()
        return recall()
    loop = asyncio.get_running_loop()
    asking, out_of_reach = loop.create_task(ask), loop.create_task(outage.began())
    timer = loop.call_later(PATIENCE, outage.suspect)
    try:
        await asyncio.wait((asking, out_of_reach), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            return recall()
        try:
            return asking.result()
        except BackendError as error:
            if not (error.temporary or isinstance(error, ContainerMissing)):
                raise
            return recall()
    finally:
        timer.cancel()
        asking.cancel()
        out_of_reach.cancel()
