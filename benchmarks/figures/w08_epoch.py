"""W8: one pass over many small files in random order by several threads, as a training loop makes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import obstore

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.workloads import read_file, read_files

FILES: Final = 2000
SIZE: Final = 100 << 10
TITLE: Final = "epoch over 2,000 files of 100 KiB, 8 threads"


@workload(
    Figure("W8.cold", f"{TITLE}, cold", "files/s", against="direct", limit=0.8),
    Figure("W8.warm", f"{TITLE}, again", "files/s again", against="native", limit=0.8, against_unit="files/s"),
    Figure("W8.cold.s3fs", f"{TITLE}, cold", "files/s", against="s3fs"),
    Figure("W8.cold.rclone", f"{TITLE}, cold", "files/s", against="rclone"),
)
@contextmanager
def epoch(environment: Environment) -> Iterator[Sides]:
    block = os.urandom(SIZE)
    objects = {f"{number:05d}": number.to_bytes(8, "little") + block[8:] for number in range(FILES)}
    names = list(objects)
    bucket = environment.small_objects("epoch", objects)
    store = environment.store(bucket)
    sides = Sides({})

    def paths(directory: Path) -> list[str]:
        return [str(directory / name) for name in names]

    def mounted(side: str) -> Run:
        def run() -> Values:
            with environment.mount(bucket, side) as mount:
                with environment.counters(mount) as counters:
                    cold = read_files(paths(mount.directory), read_file)
                sides.facts[side] = counters.facts
                with environment.counters(mount) as counters:
                    warm = read_files(paths(mount.directory), read_file)
                sides.facts[side]["again"] = counters.facts
                for name, path in zip(names, paths(mount.directory), strict=True):
                    if (data := Path(path).read_bytes())[8:] != block[8:] or int.from_bytes(data[:8], "little") != int(
                        name
                    ):
                        raise WrongContent(f"{path} has other bytes than its object")
            return {"files/s": cold, "files/s again": warm}

        return run

    with environment.folder() as folder:
        for name in names:
            (folder / name).write_bytes(block)
        sides.runs = {
            "native": lambda: {"files/s": read_files(paths(folder), read_file)},
            "direct": lambda: {"files/s": read_files(names, lambda name: len(obstore.get(store, name).bytes()))},
            **{side: mounted(side) for side in ("fsdriver", "s3fs", "rclone")},
        }
        yield sides
