"""W10: a checkpoint: written beside its place, made durable, renamed; and read back on another day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environment import Environment
from benchmarks.figures.w05_write_large import SIZE, put, write_file
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import check_file, check_object, download, read_through, wait_durable

TITLE: Final = "512 MiB checkpoint: write, fsync, rename"
READ: Final = "512 MiB checkpoint read back by a new mount"


def _save(folder: Path, source: bytes) -> float:
    began = time.perf_counter()
    write_file(folder / "checkpoint.tmp", source)
    (folder / "checkpoint.tmp").rename(folder / "checkpoint")
    return time.perf_counter() - began


@workload(
    Figure("W10.back", f"{TITLE}; write-back", "s", "back", "native", 1.2, at_most=True),
    Figure("W10.through", f"{TITLE}; write-through", "s", "through", "direct", 1.1, at_most=True),
    Figure("W10.read", READ, "s to read", "back", "direct", 1.3, at_most=True),
    Figure("W10.rclone", f"{TITLE}; write-back", "s", "back", "rclone"),
    Figure("W10.juicefs", f"{TITLE}; write-through", "s", "through", "juicefs"),
)
@contextmanager
def checkpoint(environment: Environment) -> Iterator[Sides]:
    large = environment.large(SIZE)
    source = large.path.read_bytes()
    sides = Sides({})

    def native() -> Values:
        with environment.folder() as folder:
            return {"s": _save(folder, source)}

    def direct() -> Values:
        with environment.bucket() as bucket:
            store = environment.store(bucket)
            began = time.perf_counter()
            put(store, "checkpoint", source)
            written = time.perf_counter() - began
            return {"s": written, "s to read": SIZE / download(store, "checkpoint", SIZE) / 1e6}

    def mounted(side: str) -> Run:
        def run() -> Values:
            with ExitStack() as stack:
                bucket = stack.enter_context(environment.bucket())
                store = environment.store(bucket)
                with environment.mount(bucket, side) as mount:
                    with environment.counters(mount) as counters:
                        seconds = _save(mount.directory, source)
                        wait_durable(mount, store, {"checkpoint": SIZE})
                    sides.facts[side] = counters.facts
                if not mount.plain:
                    return {"s": seconds}
                check_object(store, "checkpoint", source)
                with environment.mount(bucket, side) as mount:
                    speed = read_through(mount.directory / "checkpoint")
                    check_file(mount.directory / "checkpoint", large.path)
                return {"s": seconds, "s to read": SIZE / speed / 1e6}

        return run

    sides.runs = {
        "native": native,
        "direct": direct,
        **{side: mounted(side) for side in ("back", "through", "rclone", "juicefs")},
    }
    yield sides
