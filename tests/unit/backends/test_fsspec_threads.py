"""A synchronous fsspec file system that hangs holds up nobody but its own callers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from fsdriver.backends.fsspec_backend import FsspecBackend, Place
from fsdriver.backends.retry import RetryPolicy
from fsdriver.errors import TimedOut


class Hanging(MemoryFileSystem):
    """Answers nothing until it is released."""

    released = threading.Event()

    def cat_file(self, *_: Any, **__: Any) -> bytes:
        self.released.wait()
        return b""


def test_the_threads_of_others_stay_free() -> None:
    backend = FsspecBackend("memory", Hanging(), Place("/", "", "", ""), RetryPolicy(attempts=1, deadline=1.0))

    async def scenario() -> None:
        reads = [asyncio.ensure_future(backend.get(f"f{number}")) for number in range(100)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 60) == "done"
        assert not any(read.done() for read in reads)
        assert all(isinstance(error, TimedOut) for error in await asyncio.gather(*reads, return_exceptions=True))
        Hanging.released.set()
        await backend.close()

    asyncio.run(scenario())
