"""One event loop for the whole process, and coroutines that start in the caller's thread.

Every operation of the driver is written once, as a coroutine. A warm hit needs no network, so it should not pay for a hop
to another thread; a miss must run on the event loop. `run` and `start` therefore drive a coroutine in the calling thread
until it asks for the loop (`on_loop`); only then is the rest of it handed over. Code before the first ``await on_loop()``
must not touch asyncio; code after it runs on the loop's thread.

The loop is fsspec's own (`fsspec.asyn.get_loop`), so that asynchronous fsspec backends share it, and so that fsspec's
after-fork handling covers us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from fsspec.asyn import get_loop

T = TypeVar("T")


class _LoopRequest:
    """Awaiting it suspends once: `_advance` sees the coroutine stop, a task of the loop just goes round."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def on_loop() -> None:
    """Continue on the engine's loop; nothing happens when already there.

    Raises
    ------
    RuntimeError
        In a coroutine that another event loop drives: enter through `bridge` there.
    """
    running = _running_loop()
    if running is None:
        await _LoopRequest()
    elif running is not get_loop():
        raise RuntimeError("fsdriver coroutines run on fsspec's loop; await them through fsdriver.runtime.bridge")


def _advance(coroutine: Coroutine[Any, Any, T]) -> tuple[bool, T | None]:
    """Run up to the first `on_loop`: (True, result) if the coroutine finished before, else (False, None)."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return True, stop.value
    return False, None


def run(coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Result of a coroutine, for synchronous callers in any thread but the loop's.

    Parameters
    ----------
    timeout : float, optional
        Seconds to wait for the loop's part; then the coroutine is cancelled and `TimeoutError` raised.
    """
    running = _running_loop()
    if running is not None and running is get_loop():
        coroutine.close()
        raise RuntimeError("a synchronous fsdriver call was made on the event loop's thread, where it would never end")
    if running is not None:
        return asyncio.run_coroutine_threadsafe(coroutine, get_loop()).result(timeout)
    done, value = _advance(coroutine)
    if done:
        return value  # type: ignore[return-value]
    future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()
        raise


def start(
    coroutine: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None]
) -> asyncio.Future[T] | None:
    """Drive a coroutine without waiting: ``done(result, error)`` is called in this thread if it needs no loop, else on it.

    Returns
    -------
    concurrent.futures.Future or None
        A handle to cancel the loop's part, or None when ``done`` was already called.
    """
    try:
        finished, value = _advance(coroutine)
    except Exception as error:  # noqa: BLE001 - whatever the operation raised belongs to `done`
        done(None, error)
        return None
    if finished:
        done(value, None)
        return None

    async def rest() -> T:
        try:
            result = await _resume(coroutine)
        except BaseException as error:
            done(None, error)
            raise
        done(result, None)
        return result

    return asyncio.run_coroutine_threadsafe(rest(), get_loop())  # type: ignore[return-value]


async def _resume(coroutine: Coroutine[Any, Any, T]) -> T:
    return await asyncio.get_running_loop().create_task(coroutine)


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a driver coroutine from any event loop."""
    if _running_loop() is get_loop():
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, get_loop()))


def spawn(coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Begin a coroutine on the loop from any thread; the caller keeps the handle and owns its end."""
    return asyncio.run_coroutine_threadsafe(coroutine, get_loop())  # type: ignore[return-value]
