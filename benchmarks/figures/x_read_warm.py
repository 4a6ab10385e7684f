"""The library face: whole files of 100 KiB through ``tier://``, warm, against a local file and against s3fs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import fsspec

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.library import library

FILES: Final = 200
SIZE: Final = 100 << 10
PASSES: Final = 10
TITLE: Final = "100 KiB files through tier::s3://, warm"


def _speed(read: Callable[[str], bytes], names: Sequence[str], expected: bytes, passes: int = PASSES) -> Values:
    began = time.perf_counter()
    total = sum(len(read(name)) for _ in range(passes) for name in names)
    passed = time.perf_counter() - began
    if total != passes * len(names) * len(expected) or any(read(name) != expected for name in names[:10]):
        raise WrongContent("other bytes than were written")
    return {"files/s": passes * len(names) / passed}


def _plain(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _opened(filesystem: Any) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        with filesystem.open(path) as file:
            return bytes(file.read())

    return read


@workload(
    Figure("read-warm.cat", f"fs.cat_file of {TITLE}", "files/s", "cat", "native", limit=0.5),
    Figure("read-warm.open", f"fs.open().read() of {TITLE}", "files/s", "open", "native", limit=0.5),
    Figure("read-warm.disk.cat", f"fs.cat_file of {TITLE}, cache.memory=0", "files/s", "disk cat", "native", limit=0.5),
    Figure(
        "read-warm.disk.open",
        f"fs.open().read() of {TITLE}, cache.memory=0",
        "files/s",
        "disk open",
        "native",
        limit=0.5,
    ),
    Figure(
        "read-warm.s3fs", f"fs.cat_file of {TITLE}; the Python package s3fs", "files/s", "cat", "python-s3fs", limit=20
    ),
)
@contextmanager
def read_warm(environment: Environment) -> Iterator[Sides]:
    data = os.urandom(SIZE)
    names = [f"{number:04d}" for number in range(FILES)]
    bucket = environment.small_objects("read-warm", dict.fromkeys(names, data))
    service = environment.service
    s3 = fsspec.filesystem(
        "s3", key=service.access_key, secret=service.secret_key, client_kwargs={"endpoint_url": service.endpoint}
    )
    with ExitStack() as stack:
        folder = stack.enter_context(environment.folder())
        for name in names:
            (folder / name).write_bytes(data)
        memory, root = stack.enter_context(library(environment, bucket))
        memory.cat_file(f"{root}/{names[0]}")  # its engine is made with the settings of now
        disk, _ = stack.enter_context(library(environment, bucket, memory="0"))
        ours = [f"{root}/{name}" for name in names]
        plain = [str(folder / name) for name in names]
        keys = [f"{bucket}/{name}" for name in names]
        yield Sides(
            {
                "native": lambda: _speed(_plain, plain, data),
                "cat": lambda: _speed(memory.cat_file, ours, data),
                "open": lambda: _speed(_opened(memory), ours, data),
                "disk cat": lambda: _speed(disk.cat_file, ours, data),
                "disk open": lambda: _speed(_opened(disk), ours, data),
                "python-s3fs": lambda: _speed(s3.cat_file, keys, data, 1),
            },
            warm_up=True,
        )
