"""Many small cached files: the price of an open, where every call reaches the daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Sides, Values, workload

FILES: Final = 500
ROUNDS: Final = 10
SIZE: Final = 4096


def _speed(paths: Sequence[str]) -> Values:
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, SIZE)
            os.close(descriptor)
    return {"files/s": ROUNDS * len(paths) / (time.perf_counter() - began)}


@workload(Figure("open-read-close", "open, read 4 KiB, close of 500 cached files", "files/s", against="native"))
@contextmanager
def open_read_close(environment: Environment) -> Iterator[Sides]:
    names = [f"{number:04d}" for number in range(FILES)]
    bucket = environment.small_objects("open", dict.fromkeys(names, b"x" * SIZE))
    sides = Sides({}, warm_up=True)
    with environment.folder() as folder, environment.mount(bucket) as mount:
        for name in names:
            (folder / name).write_bytes(b"x" * SIZE)

        def ours() -> Values:
            with environment.counters(mount) as counters:
                values = _speed([str(mount.directory / name) for name in names])
            sides.facts["fsdriver"] = counters.facts
            return values

        sides.runs = {"fsdriver": ours, "native": lambda: _speed([str(folder / name) for name in names])}
        yield sides
