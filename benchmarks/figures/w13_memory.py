"""W13: what the daemon holds in memory, however much goes through it; the last workload, as it looks back at all others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.environment import MIB, Environment
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.mounts import Mount
from benchmarks.workloads import check_file, create_files, read_file, read_files, read_through

LARGE: Final = 128 * MIB
FILES: Final = 200
TIMES: Final = 10


@workload(
    Figure("W13", "peak memory of any daemon, over all figures of the run", "MiB", limit=200, at_most=True),
    Figure(
        "W13.ten",
        "peak memory after ten times the work (large reads and writes, small files, walks)",
        "MiB of ten",
        "fsdriver",
        "fsdriver",
        1.2,
        at_most=True,
        against_unit="MiB of one",
    ),
    most_rounds=1,
)
@contextmanager
def memory(environment: Environment) -> Iterator[Sides]:
    large = environment.large(LARGE)
    source = large.path.read_bytes()
    sides = Sides({})

    def work(mount: Mount, number: int) -> None:
        client = environment.service.client()
        folder = mount.directory / f"part{number}"
        folder.mkdir()
        client.copy_object(
            Bucket=mount.bucket, Key=f"large{number}", CopySource={"Bucket": large.bucket, "Key": large.key}
        )
        mount.ask("refresh", path="/")
        read_through(mount.directory / f"large{number}")
        check_file(mount.directory / f"large{number}", large.path)
        (folder / "written").write_bytes(source)
        names = [f"{count:04d}" for count in range(FILES)]
        create_files(folder, names, os.urandom(4096))
        mount.sync()
        read_files([str(folder / name) for name in names], read_file)
        for _ in os.walk(mount.directory):
            pass

    def run() -> Values:
        with environment.bucket() as bucket, environment.mount(bucket, "fsdriver") as mount:
            work(mount, 0)
            one = mount.peak_memory()
            for number in range(1, TIMES):
                work(mount, number)
            ten = mount.peak_memory()
        ours = environment.peaks()
        sides.facts["fsdriver"] = {"daemons looked at": len(ours)}
        return {"MiB": max(ours), "MiB of ten": ten, "MiB of one": one}

    sides.runs = {"fsdriver": run}
    yield sides
