"""W1: the first read of a large object, against the S3 client's own parallel download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import check_file, download, read_through

TITLE = "cold sequential 1 MiB reads of a 1 GiB object"


@workload(
    Figure("W1", TITLE, "MB/s", against="direct", limit=0.9),
    Figure("W1.kept", f"{TITLE}; direct keeps the bytes in a file too", "MB/s", against="kept"),
    Figure("W1.s3fs", TITLE, "MB/s", against="s3fs"),
    Figure("W1.rclone", TITLE, "MB/s", against="rclone"),
)
@contextmanager
def cold_sequential(environment: Environment) -> Iterator[Sides]:
    large = environment.large()
    store = environment.store(large.bucket)
    sides = Sides({})

    def mounted(side: str) -> Run:
        def run() -> Values:
            with environment.mount(large.bucket, side) as mount:
                with environment.counters(mount) as counters:
                    speed = read_through(mount.directory / large.key)
                counters.facts["bytes fetched per byte asked"] = counters.bytes_sent / large.size
                sides.facts[side] = counters.facts
                check_file(mount.directory / large.key, large.path)
            return {"MB/s": speed}

        return run

    def kept() -> Values:
        with environment.folder() as folder:
            return {"MB/s": download(store, large.key, large.size, folder / "kept")}

    sides.runs = {
        "fsdriver": mounted("fsdriver"),
        "direct": lambda: {"MB/s": download(store, large.key, large.size)},
        "kept": kept,
        "s3fs": mounted("s3fs"),
        "rclone": mounted("rclone"),
    }
    yield sides
