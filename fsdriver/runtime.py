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


class Started:
    """The part of a coroutine that runs on the loop; see `start`."""

    __slots__ = ("_cancelled", "_coroutine", "_done", "_loop", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self._coroutine = coroutine
        self._done = done
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._loop = get_loop()

    def resume(self) -> None:
        """Let the loop take it from here; call once, from any thread."""
        self._loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        """End it with a CancelledError, from any thread; nothing happens when it has ended."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        # A task takes a coroutine that has run a part of its way already.
        self._task = task = self._loop.create_task(self._coroutine)
        task.add_done_callback(self._finish)
        if self._cancelled:
            task.cancel()

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._done(None if error is not None else task.result(), error)


def start(coroutine: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None]) -> Started | None:
    """Drive a coroutine without waiting: ``done(result, error)`` is called in this thread if it needs no loop, else on it.

    Returns
    -------
    Started or None
        What to `Started.resume` (after noting it, if it is to be cancelled), or None when ``done`` was already called.
    """
    try:
        finished, value = _advance(coroutine)
    except Exception as error:  # noqa: BLE001 - whatever the operation raised belongs to `done`
        done(None, error)
        return None
    if finished:
        done(value, None)
        return None
    return Started(coroutine, done)


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a driver coroutine from any event loop."""
    if _running_loop() is get_loop():
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, get_loop()))


def spawn(coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Begin a coroutine on the loop from any thread; the caller keeps the handle and owns its end."""
    return asyncio.run_coroutine_threadsafe(coroutine, get_loop())  # type: ignore[return-value]
