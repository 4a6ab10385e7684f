"""The fsspec face in this process or in others, on a cache of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec

from benchmarks.environment import Environment
from benchmarks.mounts import places

T = TypeVar("T")


@contextmanager
def library(environment: Environment, bucket: str, **cache: str) -> Iterator[tuple[Any, str]]:
    """``tier::s3://`` of a bucket with an empty cache, and the prefix of its paths; ``cache`` are keys of ``[cache]``."""
    settings = {f"FSDRIVER__CACHE__{name.upper()}": value for name, value in cache.items()}
    with environment.folder() as home, environment.variables({**places(home), **settings}):
        filesystem, root = fsspec.url_to_fs(f"tier::s3://{bucket}", skip_instance_cache=True)
        try:
            yield filesystem, root
        finally:
            # The process keeps the engine; the next workload shall not meet it, without its folders.
            filesystem._namespace.engine.close()  # noqa: SLF001 - what the instance opened


def in_processes(work: Callable[..., T], arguments: Iterable[tuple[Any, ...]], method: str = "fork") -> list[T]:
    """Results of calls, each in a process of its own, all at once."""
    context = multiprocessing.get_context(method)
    results: list[T] = []
    pipes = []
    for given in arguments:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, work, given))  # type: ignore[attr-defined]
        process.start()
        sender.close()
        pipes.append((process, receiver))
    for process, receiver in pipes:
        results.append(receiver.recv())
        process.join()
    return results


def _send(sender: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    sender.send(work(*given))
    sender.close()
