"""W5: one large file, written from the start to the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import obstore
from obstore.store import S3Store

from benchmarks.environment import MIB, Environment
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import THREADS, check_object, wait_durable

SIZE: Final = 512 * MIB
STEP: Final = 4 * MIB
TITLE: Final = "512 MiB in 4 MiB writes, fsync, close"


def write_file(path: Path, source: bytes) -> None:
    """The file as it is written by a program that is careful; to its close."""
    view = memoryview(source)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for start in range(0, len(source), STEP):
        os.write(descriptor, view[start : start + STEP])
    os.fsync(descriptor)
    os.close(descriptor)


def put(store: S3Store, key: str, source: bytes) -> None:
    """The same bytes by a client of the store."""
    obstore.put(store, key, source, use_multipart=True, chunk_size=8 * MIB, max_concurrency=THREADS)


@workload(
    Figure("W5.back", f"{TITLE}; write-back", "MB/s", "back", "native", 0.9),
    Figure("W5.through", f"{TITLE}; write-through", "MB/s", "through", "direct", 0.95),
    Figure("W5.durable", f"{TITLE}; write-back, until it is in the bucket", "s", "back", "direct", 1.3, at_most=True),
    Figure("W5.rclone", f"{TITLE}; write-back", "MB/s", "back", "rclone"),
    Figure("W5.juicefs", f"{TITLE}; write-through", "MB/s", "through", "juicefs"),
)
@contextmanager
def write_large(environment: Environment) -> Iterator[Sides]:
    source = environment.large(SIZE).path.read_bytes()
    sides = Sides({})
    with ExitStack() as stack:
        mount_of = environment.mounts(stack)

        def native() -> Values:
            with environment.folder() as folder:
                began = time.perf_counter()
                write_file(folder / "file", source)
                return {"MB/s": SIZE / (time.perf_counter() - began) / 1e6}

        def direct() -> Values:
            with environment.bucket() as bucket:
                store = environment.store(bucket)
                began = time.perf_counter()
                put(store, "file", source)
                passed = time.perf_counter() - began
            return {"MB/s": SIZE / passed / 1e6, "s": passed}

        def mounted(side: str) -> Run:
            def run() -> Values:
                mount = mount_of(side)
                store = environment.store(mount.bucket)
                path = mount.directory / "file"
                with environment.counters(mount) as counters:
                    began = time.perf_counter()
                    write_file(path, source)
                    closed = time.perf_counter() - began
                    wait_durable(mount, store, {"file": SIZE})
                    passed = time.perf_counter() - began
                sides.facts[side] = counters.facts
                if mount.plain:
                    check_object(store, "file", source)
                path.unlink()
                mount.sync()
                return {"MB/s": SIZE / closed / 1e6, "s": passed}

            return run

        sides.runs = {
            "native": native,
            "direct": direct,
            **{side: mounted(side) for side in ("back", "through", "rclone", "juicefs")},
        }
        yield sides
