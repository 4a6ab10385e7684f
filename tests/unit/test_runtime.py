"""Coroutines that begin in the caller's thread, and where they go on."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from fsdriver.runtime import on_loop, on_worker, run, start
from fsdriver.threads import MOST, Threads


async def _where() -> tuple[bool, str]:
    return await on_worker(), threading.current_thread().name


async def _twice() -> tuple[bool, bool]:
    first = await on_worker()
    await on_loop()
    return first, await on_worker()


def _started(coroutine: object) -> Future[object]:
    ended: Future[object] = Future()
    started = start(coroutine, lambda result, _error: ended.set_result(result))  # type: ignore[arg-type]
    if started is not None:
        started.resume()
    return ended


def test_who_waits_for_a_result_waits_for_a_request_too() -> None:
    assert run(_where()) == (True, threading.current_thread().name)


def test_who_does_not_wait_has_another_thread_wait() -> None:
    may_wait, name = _started(_where()).result(10)  # type: ignore[misc]
    assert may_wait
    assert name.startswith("fsdriver-worker")


def test_the_event_loop_waits_for_nothing() -> None:
    assert _started(_twice()).result(10) == (True, False)
    assert run(_twice()) == (True, False)


def test_without_a_free_thread_the_caller_goes_on() -> None:
    hold = threading.Event()

    async def held() -> bool:
        may_wait = await on_worker()
        if may_wait:
            hold.wait(10)
        return may_wait

    busy = [_started(held()) for _ in range(MOST)]
    assert _started(_where()).result(10) == (False, threading.current_thread().name)
    hold.set()
    assert all(one.result(10) for one in busy)


def test_threads_refuse_what_would_have_to_wait_for_one() -> None:
    threads, hold = Threads("test", 1), threading.Event()
    assert threads.submit(lambda: hold.wait(10) and None)
    assert not threads.submit(lambda: None)
    hold.set()
    threads.close()
    assert threads.submit(lambda: None)
    threads.close()
