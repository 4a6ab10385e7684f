"""Walking a large tree: requests a LIST answers, not one a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.environment import Environment, requests_between, requests_of
from benchmarks.harness import Pair, figure
from benchmarks.workloads import walk

PREFIXES: Final = 100
OBJECTS: Final = 10_000


def _make(environment: Environment) -> str:
    return environment.small_objects(
        "walk", {f"{number % PREFIXES:03d}/{number:05d}": b"" for number in range(OBJECTS)}
    )


@contextmanager
def _plain(environment: Environment) -> Iterator[Any]:
    with environment.folder() as folder:
        for prefix in range(PREFIXES):
            (folder / f"{prefix:03d}").mkdir()
        for number in range(OBJECTS):
            (folder / f"{number % PREFIXES:03d}" / f"{number:05d}").touch()
        yield folder


@figure("find-cold", "find -ls over 10,000 objects, cold", unit="entries/s", against="plain directory, warm")
@contextmanager
def find_cold(environment: Environment) -> Iterator[Pair]:
    bucket = _make(environment)
    facts: dict[str, Any] = {}
    with _plain(environment) as plain:

        def ours() -> float:
            with environment.mount(f"s3://{bucket}") as mount:
                before = requests_of(mount.status())
                speed = walk(mount.directory)
                after = requests_of(mount.status())
                facts.update(requests_between(before, after))
            return speed

        yield Pair(ours, lambda: walk(plain), warm_up=False, facts=facts)


@figure("find-warm", "find -ls over 10,000 objects, again", unit="entries/s", against="plain directory, warm")
@contextmanager
def find_warm(environment: Environment) -> Iterator[Pair]:
    with _plain(environment) as plain, environment.mount(f"s3://{_make(environment)}") as mount:
        yield Pair(lambda: walk(mount.directory), lambda: walk(plain))
