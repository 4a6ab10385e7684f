"""W11: pieces of a cached file are written over."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environment import MIB, Environment
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import check_object, read_through, wait_durable

SIZE: Final = 64 * MIB
WRITES: Final = 1000
BLOCK: Final = 4096
TITLE: Final = "1,000 random 4 KiB overwrites of a cached 64 MiB file, fsync, close"


def _overwrite(path: Path, content: bytearray) -> float:
    """Overwrites a second; ``content`` is kept equal to what the file is to have."""
    pieces = [(BLOCK * random.randrange(SIZE // BLOCK), random.randbytes(BLOCK)) for _ in range(WRITES)]
    began = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY)
    for offset, data in pieces:
        os.pwrite(descriptor, data, offset)
    os.fsync(descriptor)
    os.close(descriptor)
    passed = time.perf_counter() - began
    for offset, data in pieces:
        content[offset : offset + BLOCK] = data
    return WRITES / passed


@workload(
    Figure("W11.back", f"{TITLE}; write-back", "writes/s", "back", "native", 0.5),
    Figure("W11.through", f"{TITLE}; write-through", "writes/s", "through", "native"),
    Figure("W11.through.juicefs", f"{TITLE}; write-through", "writes/s", "through", "juicefs", 3),
    Figure("W11.back.rclone", f"{TITLE}; write-back", "writes/s", "back", "rclone"),
)
@contextmanager
def overwrite(environment: Environment) -> Iterator[Sides]:
    start = environment.large(SIZE).path.read_bytes()
    sides = Sides({}, warm_up=True)
    contents: dict[str, bytearray] = {}
    with ExitStack() as stack:
        mount_of = environment.mounts(stack)
        folder = stack.enter_context(environment.folder())

        def place(side: str, path: Path) -> bytearray:
            if side not in contents:
                contents[side] = bytearray(start)
                path.write_bytes(start)
            read_through(path)
            return contents[side]

        def native() -> Values:
            path = folder / "file"
            content = place("native", path)
            os.sync()
            return {"writes/s": _overwrite(path, content)}

        def mounted(side: str) -> Run:
            def run() -> Values:
                mount = mount_of(side)
                store = environment.store(mount.bucket)
                path = mount.directory / "file"
                content = place(side, path)
                wait_durable(mount, store, {"file": SIZE})
                with environment.counters(mount) as counters:
                    speed = _overwrite(path, content)
                sides.facts[side] = counters.facts
                if mount.sync():
                    check_object(store, "file", bytes(content))
                return {"writes/s": speed}

            return run

        sides.runs = {
            "native": native,
            **{side: mounted(side) for side in ("back", "through", "rclone", "juicefs")},
        }
        yield sides
