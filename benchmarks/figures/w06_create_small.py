"""W6: many small new files: what one create, write and close costs, and when the bucket has them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

import obstore

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import THREADS, check_object, create_files, wait_durable

FILES: Final = 500
NAMES: Final = [f"{number:05d}" for number in range(FILES)]
TITLE: Final = "create 500 files of 4 KiB"


@workload(
    Figure("W6.back", f"{TITLE}; write-back", "files/s", "back", "native", 0.5),
    Figure("W6.back.rclone", f"{TITLE}; write-back", "files/s", "back", "rclone", 4),
    Figure("W6.through", f"{TITLE}; write-through", "files/s", "through", "direct"),
    Figure("W6.through.juicefs", f"{TITLE}; write-through", "files/s", "through", "juicefs", 2),
    Figure("W6.durable", f"{TITLE}; write-back, until all are in the bucket", "s", "back", "direct", 1.3, at_most=True),
)
@contextmanager
def create_small(environment: Environment) -> Iterator[Sides]:
    data = os.urandom(4096)
    sides = Sides({}, warm_up=True)
    rounds = itertools.count()
    with ExitStack() as stack:
        mount_of = environment.mounts(stack)
        plain_bucket = stack.enter_context(environment.bucket())

        def native() -> Values:
            with environment.folder() as folder:
                return {"files/s": create_files(folder, NAMES, data)}

        def direct() -> Values:
            store, prefix = environment.store(plain_bucket), f"round{next(rounds)}"
            began = time.perf_counter()
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda name: obstore.put(store, f"{prefix}/{name}", data), NAMES))
            passed = time.perf_counter() - began
            return {"files/s": FILES / passed, "s": passed}

        def mounted(side: str) -> Run:
            def run() -> Values:
                mount, folder = mount_of(side), f"round{next(rounds)}"
                store = environment.store(mount.bucket)
                (mount.directory / folder).mkdir()
                mount.sync()
                sizes = {f"{folder}/{name}": len(data) for name in NAMES}
                with environment.counters(mount) as counters:
                    began = time.perf_counter()
                    speed = create_files(mount.directory / folder, NAMES, data)
                    wait_durable(mount, store, sizes)
                    passed = time.perf_counter() - began
                sides.facts[side] = counters.facts
                if mount.plain:
                    for key in sizes:
                        check_object(store, key, data)
                return {"files/s": speed, "s": passed}

            return run

        sides.runs = {
            "native": native,
            "direct": direct,
            **{side: mounted(side) for side in ("back", "through", "rclone", "juicefs")},
        }
        yield sides
