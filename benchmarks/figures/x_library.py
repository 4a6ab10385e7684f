"""The library face: whole small objects through ``tier://``, warm, against a local file and against s3fs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import fsspec

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.mounts import places
from fsdriver.engine import open_engine

FILES: Final = 500
SIZE: Final = 4096
ROUNDS: Final = 4
TITLE: Final = "fs.cat_file of 4 KiB through tier::s3://, warm"


def _speed(read: Callable[[str], bytes], names: Sequence[str], expected: bytes, rounds: int = ROUNDS) -> Values:
    began = time.perf_counter()
    for _ in range(rounds):
        for name in names:
            if read(name) != expected:
                raise WrongContent(f"{name} has other bytes than were written")
    return {"files/s": rounds * len(names) / (time.perf_counter() - began)}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@workload(
    Figure("cat-warm", f"{TITLE}; native opens and reads a file", "files/s", against="native"),
    Figure("cat-warm-s3fs", f"{TITLE}; against the Python package s3fs", "files/s", against="python-s3fs"),
)
@contextmanager
def cat_warm(environment: Environment) -> Iterator[Sides]:
    data = os.urandom(SIZE)
    names = [f"{number:04d}" for number in range(FILES)]
    bucket = environment.small_objects("library", dict.fromkeys(names, data))
    service = environment.service
    with environment.folder() as home, environment.folder() as folder, environment.variables(places(home)):
        filesystem, root = fsspec.url_to_fs(f"tier::s3://{bucket}")
        s3 = fsspec.filesystem(
            "s3", key=service.access_key, secret=service.secret_key, client_kwargs={"endpoint_url": service.endpoint}
        )
        for name in names:
            (folder / name).write_bytes(data)
        ours = [f"{root}/{name}" for name in names]
        plain = [str(folder / name) for name in names]
        keys = [f"{bucket}/{name}" for name in names]
        try:
            yield Sides(
                {
                    "fsdriver": lambda: _speed(filesystem.cat_file, ours, data),
                    "native": lambda: _speed(_read, plain, data),
                    "python-s3fs": lambda: _speed(s3.cat_file, keys, data, 1),
                },
                warm_up=True,
            )
        finally:
            # The process keeps instance and engine; the next workload shall not meet them, without their folders.
            filesystem.clear_instance_cache()
            open_engine(write="through").close()
