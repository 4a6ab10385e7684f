"""Many small new files: what one create, write and close costs, and when the bucket has them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environment import Environment
from benchmarks.harness import Pair, figure
from benchmarks.workloads import create_files
from fsdriver.entry import Changes
from fsdriver.route import Route
from fsdriver.runtime import run

FILES: Final = 500
DATA: Final = os.urandom(4096)


def _numbered(directory: Path) -> Callable[[], Path]:
    numbers = itertools.count()
    return lambda: directory / f"round{next(numbers)}"


@contextmanager
def _mounted(environment: Environment, write: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        plain = _numbered(stack.enter_context(environment.folder()))
        mount = stack.enter_context(environment.mount(f"s3://{environment.bucket()}", write=write))
        fresh = _numbered(mount.directory)
        waits: list[float] = []

        def ours() -> float:
            speed = create_files(fresh(), FILES, DATA)
            began = time.perf_counter()
            mount.sync()
            waits.append(time.perf_counter() - began)
            return speed

        pair = Pair(ours, lambda: create_files(plain(), FILES, DATA))
        yield pair
        pair.facts |= {f"seconds until all {FILES} are in the bucket, at most": max(waits)}


@figure("create-back", "create 4 KiB files, write-back", unit="files/s", against="plain directory")
@contextmanager
def create_back(environment: Environment) -> Iterator[Pair]:
    with _mounted(environment, "back") as pair:
        yield pair


@figure("create-through", "create 4 KiB files, write-through", unit="files/s", against="plain directory")
@contextmanager
def create_through(environment: Environment) -> Iterator[Pair]:
    with _mounted(environment, "through") as pair:
        yield pair


def _create(route: Route, directory: str) -> float:
    """The same through the driver itself, without a kernel between."""
    run(route.mkdir(directory))
    began = time.perf_counter()
    for number in range(FILES):
        path = f"{directory}/{number:05d}"
        staged = route.new_file()
        run(route.create(path, staged, Changes(mode=0o644), exclusive=True))
        os.pwrite(staged.fileno(), DATA, 0)
        run(route.commit(path, staged))
        run(route.release(path, staged))
    return FILES / (time.perf_counter() - began)


@figure("create-driver", "create 4 KiB files, write-back, driver alone", unit="files/s", against="plain directory")
@contextmanager
def create_driver(environment: Environment) -> Iterator[Pair]:
    with ExitStack() as stack:
        plain = _numbered(stack.enter_context(environment.folder()))
        engine = stack.enter_context(environment.engine(f"s3://{environment.bucket()}", write="back"))
        route, _ = engine.route("/")
        names = _numbered(Path("/"))

        def ours() -> float:
            speed = _create(route, names().name)
            run(engine.drain(60))
            return speed

        yield Pair(ours, lambda: create_files(plain(), FILES, DATA))
