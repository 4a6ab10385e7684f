"""Whether a fork has taken the threads of obstore away, which it does not notice: its requests would wait for ever.

Programs use obstore themselves, and other packages do; so its threads are looked for when a process forks. Where it was
imported before this module, a fork may have been earlier still: it is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Final

_THREAD: Final = "tokio-rt-worker"
"""What the threads of obstore's runtime are called (proc_pid_comm(5))."""

_PATIENCE: Final = 2.0
"""Seconds for a request to memory, which takes less than one thousandth of that."""

_started_in: list[int] = []
"""The process in which the threads were started, once they were."""
_ELSEWHERE: Final = -1
"""In place of a process that is not known."""
_untried = "obstore" in sys.modules


def starts_threads() -> None:
    """Obstore is about to be used."""
    if not _started_in:
        _started_in.append(os.getpid())


def threads_lost() -> bool:
    """Whether obstore was used before this process was forked: it can never work here."""
    global _untried  # noqa: PLW0603 - tried once in a process
    if _untried and not _started_in:
        _untried = False
        _started_in.append(os.getpid() if _works() else _ELSEWHERE)
    return bool(_started_in) and _started_in[0] != os.getpid()


def _works() -> bool:
    import obstore  # noqa: PLC0415 - a service's packages load when it is used
    from obstore.store import MemoryStore  # noqa: PLC0415

    async def request() -> None:
        await obstore.put_async(MemoryStore(), "tried", b"")

    thread = threading.Thread(target=lambda: asyncio.run(request()), name="fsdriver-obstore-tried", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return not thread.is_alive()


def _before_fork() -> None:
    if not _started_in and "obstore" in sys.modules and _has_threads():
        starts_threads()


def _has_threads() -> bool:
    """Without /proc they cannot be seen: better a slower client than one that waits for ever."""
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:
        return True
    for task in tasks:
        with contextlib.suppress(OSError):  # it has just ended
            if (task / "comm").read_text().strip() == _THREAD:
                return True
    return False


os.register_at_fork(before=_before_fork)
