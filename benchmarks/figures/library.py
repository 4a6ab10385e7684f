"""The library face: whole small objects through ``tier://``, warm, against a local file and against s3fs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import fsspec

from benchmarks.environment import Environment, places
from benchmarks.harness import Pair, figure
from fsdriver.engine import open_engine

FILES: Final = 500
SIZE: Final = 4096
ROUNDS: Final = 4


def _speed(read: Callable[[str], bytes], names: Sequence[str], rounds: int = ROUNDS) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        for name in names:
            assert len(read(name)) == SIZE
    return rounds * len(names) / (time.perf_counter() - began)


@contextmanager
def _tier(environment: Environment) -> Iterator[tuple[Any, str, list[str]]]:
    names = [f"{number:04d}" for number in range(FILES)]
    bucket = environment.small_objects("library", dict.fromkeys(names, os.urandom(SIZE)))
    with environment.folder() as home, environment.variables(places(home)):
        filesystem, root = fsspec.url_to_fs(f"tier::s3://{bucket}")
        try:
            yield filesystem, bucket, [f"{root}/{name}" for name in names]
        finally:
            # The process keeps instance and engine; the next figure shall not meet them, without their folders.
            filesystem.clear_instance_cache()
            open_engine(write="through").close()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@figure(
    "cat-warm-file", "fs.cat_file of 4 KiB through tier::s3://, warm", unit="files/s", against="open and read of a file"
)
@contextmanager
def cat_warm_file(environment: Environment) -> Iterator[Pair]:
    with environment.folder() as folder, _tier(environment) as (filesystem, _, paths):
        plain = [str(folder / str(number)) for number in range(FILES)]
        for path in plain:
            with open(path, "wb") as file:
                file.write(os.urandom(SIZE))
        yield Pair(lambda: _speed(filesystem.cat_file, paths), lambda: _speed(_read, plain))


@figure("cat-warm-s3fs", "fs.cat_file of 4 KiB through tier::s3://, warm", unit="files/s", against="s3fs")
@contextmanager
def cat_warm_s3fs(environment: Environment) -> Iterator[Pair]:
    with _tier(environment) as (filesystem, bucket, paths):
        service = environment.service
        s3 = fsspec.filesystem(
            "s3", key=service.access_key, secret=service.secret_key, client_kwargs={"endpoint_url": service.endpoint}
        )
        keys = [f"{bucket}/{path.rsplit('/', 1)[-1]}" for path in paths]
        yield Pair(lambda: _speed(filesystem.cat_file, paths), lambda: _speed(s3.cat_file, keys, 1))
