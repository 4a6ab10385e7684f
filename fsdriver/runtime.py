"""One event loop for the whole process, and coroutines that start in the caller's thread.

Every operation of the driver is written once, as a coroutine. A warm hit needs no network, so it should not pay for a hop
to another thread; a miss must run on the event loop. `run` and `start` therefore drive a coroutine in the calling thread
until it asks for the loop (`on_loop`); only then is the rest of it handed over. Code before the first ``await on_loop()``
must not touch asyncio; code after it runs on the loop's thread. What waits for one short request may ask for a thread that can
be held up meanwhile (`on_worker`): a round of the loop costs more than such a request.

The loop is fsspec's own (`fsspec.asyn.get_loop`), so that asynchronous fsspec backends share it, and so that fsspec's
after-fork handling covers us.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from fsspec.asyn import get_loop

from fsdriver.threads import Threads

T = TypeVar("T")

_workers: Final = Threads("fsdriver-worker")
"""Continue what `start` began and `on_worker` asks for."""


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


class _WorkerRequest:
    """Awaiting it suspends once: who drives the coroutine answers whether it goes on in a thread that may wait."""

    def __await__(self) -> Generator[_WorkerRequest, bool, bool]:
        return (yield self)


async def on_worker() -> bool:
    """Continue in a thread that may wait for a request; False, and nothing happens: on a loop, or all threads are busy."""
    return _running_loop() is None and await _WorkerRequest()


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
    try:
        wanted = coroutine.send(None)
        while wanted is not None:
            wanted = coroutine.send(True)  # the caller's thread waits anyway
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
    try:
        return future.result(timeout)
    except BaseException:  # an interrupt too: nobody takes the result any more
        future.cancel()
        raise


class Started:
    """The part of a coroutine that runs on the loop, or in a thread that may wait; see `start`."""

    __slots__ = ("_cancelled", "_coroutine", "_done", "_loop", "_task", "_wanted")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any, BaseException | None], None],
        wanted: _WorkerRequest | None,
    ) -> None:
        self._coroutine = coroutine
        self._wanted = wanted
        self._done = done
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._loop = get_loop()

    def resume(self) -> None:
        """Let the loop, or another thread, take it from here; call once, from any thread."""
        if self._wanted is None:
            self._loop.call_soon_threadsafe(self._begin)
        elif not _workers.submit(self._wait_there):
            self._go_on(may_wait=False)

    def cancel(self) -> None:
        """End it with a CancelledError, from any thread; nothing happens when it has ended."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _wait_there(self) -> None:
        self._go_on(may_wait=True)

    def _go_on(self, *, may_wait: bool) -> None:
        wanted = self._wanted
        try:
            while wanted is not None:
                wanted = self._coroutine.send(may_wait)
        except StopIteration as stop:
            self._done(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - whatever the operation raised belongs to `done`, Rust's panics too
            self._done(None, error)
        else:
            self._loop.call_soon_threadsafe(self._begin)

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
    """Drive a coroutine without waiting: ``done(result, error)`` is called in this thread if it needs no other, else there.

    Returns
    -------
    Started or None
        What to `Started.resume` (after noting it, if it is to be cancelled), or None when ``done`` was already called.
    """
    try:
        wanted = coroutine.send(None)
    except StopIteration as stop:
        done(stop.value, None)
        return None
    except Exception as error:  # noqa: BLE001 - whatever the operation raised belongs to `done`
        done(None, error)
        return None
    return Started(coroutine, done, wanted)


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a driver coroutine from any event loop."""
    if _running_loop() is get_loop():
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, get_loop()))


def spawn(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin a coroutine on the loop from any thread; the caller keeps the handle and owns its end."""
    return asyncio.run_coroutine_threadsafe(coroutine, get_loop())


os.register_at_fork(after_in_child=_workers.begin_anew)
