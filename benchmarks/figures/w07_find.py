"""W7: walking a large tree: requests that list, not one a name."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import obstore

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Run, Sides, Values, workload

PREFIXES: Final = 100
OBJECTS: Final = 10_000
TITLE: Final = "find -ls over 10,000 objects under 100 prefixes"


def _walk(directory: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(["find", str(directory), "-ls"], capture_output=True, check=True)
    passed = time.perf_counter() - began
    files = {line.split()[-1].rsplit(b"/", 2)[-1]: int(line.split()[6]) for line in done.stdout.splitlines()}
    if any(files.get(b"%05d" % number) != number % 7 for number in range(OBJECTS)):
        raise WrongContent(f"find shows other names or sizes below {directory}")
    return done.stdout.count(b"\n") / passed


@workload(
    Figure("W7.cold", f"{TITLE}, cold; direct lists the bucket", "entries/s", against="direct", limit=0.9),
    Figure("W7.warm", f"{TITLE}, again", "entries/s again", against="native", limit=0.5, against_unit="entries/s"),
    Figure("W7.cold.s3fs", f"{TITLE}, cold", "entries/s", against="s3fs"),
    Figure("W7.cold.rclone", f"{TITLE}, cold", "entries/s", against="rclone"),
)
@contextmanager
def find(environment: Environment) -> Iterator[Sides]:
    names = {f"{number % PREFIXES:03d}/{number:05d}": b"x" * (number % 7) for number in range(OBJECTS)}
    bucket = environment.small_objects("walk", names)
    store = environment.store(bucket)
    sides = Sides({})

    def direct() -> Values:
        began = time.perf_counter()
        count = sum(len(page) for page in obstore.list(store, chunk_size=1000))
        passed = time.perf_counter() - began
        if count != OBJECTS:
            raise WrongContent(f"{count} of {OBJECTS} objects are listed")
        return {"entries/s": count / passed}

    def mounted(side: str) -> Run:
        def run() -> Values:
            with environment.mount(bucket, side) as mount:
                with environment.counters(mount) as counters:
                    cold = _walk(mount.directory)
                sides.facts[side] = counters.facts
                with environment.counters(mount) as counters:
                    warm = _walk(mount.directory)
                sides.facts[side]["again"] = counters.facts
            return {"entries/s": cold, "entries/s again": warm}

        return run

    with environment.folder() as folder:
        for name, data in names.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        sides.runs = {
            "native": lambda: {"entries/s": _walk(folder)},
            "direct": direct,
            **{side: mounted(side) for side in ("fsdriver", "s3fs", "rclone")},
        }
        yield sides
