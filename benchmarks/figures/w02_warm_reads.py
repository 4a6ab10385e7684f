"""W2, W3: reads of a file that is wholly in the cache, against the same reads of a plain file on the same disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Run, Sides, Values, workload
from benchmarks.mounts import Mount, drop_pages
from benchmarks.workloads import check_file, random_reads, read_and_watch, read_through

SEQUENTIAL = "warm sequential 1 MiB reads of a 1 GiB file"
DROPPED = "the same, the kernel's pages of it and of the cache dropped before"
RANDOM = "warm random 4 KiB reads of a 1 GiB file"
UNPRIVILEGED = ", without passthrough"
PROCESSOR = ", by processor time of the reader: what a busy machine does not change"


@contextmanager
def _cached(
    environment: Environment, work: Callable[[Path], Values], drop: Callable[[Path, Mount | None], None] | None = None
) -> Iterator[Sides]:
    """The same work on a plain file and on mounted ones that were read once.

    Parameters
    ----------
    drop : callable, optional
        Called before each run: the file, and its mount if it has one.
    """
    large = environment.large()
    sides = Sides({}, warm_up=True)
    read: dict[str, Path] = {}

    def native() -> Values:
        if drop:
            drop(large.path, None)
        return work(large.path)

    def mounted(side: str) -> Run:
        def run() -> Values:
            mount = environment.cached(side)
            path = mount.directory / large.key
            if side not in read:
                check_file(path, large.path)
                read[side] = path
            if drop:
                drop(path, mount)
            with environment.counters(mount) as counters:
                values = work(path)
            sides.facts[side] = counters.facts
            return values

        return run

    read_through(large.path)
    sides.runs = {"native": native, **{side: mounted(side) for side in ("fsdriver", "unprivileged", "s3fs")}}
    yield sides
    for path in read.values():
        check_file(path, large.path)


def _drop_everything(path: Path, mount: Mount | None) -> None:
    drop_pages(path)
    if mount is not None:
        mount.drop_pages()


def _drop_mounted(path: Path, _: Mount | None) -> None:
    drop_pages(path)


@workload(
    Figure("W2", SEQUENTIAL, "MB/s", against="native", limit=0.95),
    Figure("W2.cpu", f"{SEQUENTIAL}{PROCESSOR}", "MB/CPU s", against="native"),
    Figure("W2.unprivileged", SEQUENTIAL + UNPRIVILEGED, "MB/s", "unprivileged", "native", 0.9),
    Figure("W2.cpu.unprivileged", f"{SEQUENTIAL}{UNPRIVILEGED}{PROCESSOR}", "MB/CPU s", "unprivileged", "native"),
)
@contextmanager
def warm_sequential(environment: Environment) -> Iterator[Sides]:
    with _cached(environment, read_and_watch) as sides:
        yield sides


@workload(
    Figure("W2.disk", DROPPED, "MB/s", against="native", limit=0.9),
    Figure("W2.disk.unprivileged", DROPPED + UNPRIVILEGED, "MB/s", "unprivileged", "native", 0.5),
)
@contextmanager
def page_cold_sequential(environment: Environment) -> Iterator[Sides]:
    with _cached(environment, read_and_watch, _drop_everything) as sides:
        yield sides


@workload(
    Figure("W3", f"{RANDOM}, 1 job", "reads/s", against="native", limit=0.9),
    Figure("W3.4", f"{RANDOM}, 4 jobs", "reads/s of 4", against="native", limit=0.9),
    Figure("W3.cpu", f"{RANDOM}, 1 job{PROCESSOR}", "reads/CPU s", against="native"),
    Figure("W3.unprivileged", f"{RANDOM}, 1 job{UNPRIVILEGED}", "reads/s", "unprivileged", "native", 0.9),
    Figure("W3.4.unprivileged", f"{RANDOM}, 4 jobs{UNPRIVILEGED}", "reads/s of 4", "unprivileged", "native", 0.9),
    Figure("W3.cpu.unprivileged", f"{RANDOM}, 1 job{UNPRIVILEGED}{PROCESSOR}", "reads/CPU s", "unprivileged", "native"),
)
@contextmanager
def warm_random(environment: Environment) -> Iterator[Sides]:
    with _cached(environment, lambda path: random_reads(path) | random_reads(path, 4)) as sides:
        yield sides


@workload(
    Figure("W3.daemon", f"{RANDOM}, 1 job, pages of the file dropped before", "reads/s", against="native", limit=0.9),
    Figure("W3.daemon.s3fs", f"{RANDOM}, 1 job, pages of the file dropped before", "reads/s", against="s3fs", limit=5),
)
@contextmanager
def page_cold_random(environment: Environment) -> Iterator[Sides]:
    with _cached(environment, random_reads, _drop_mounted) as sides:
        yield sides


@workload(Figure("W3.disk", f"{RANDOM}, 1 job, pages of file and cache dropped before", "reads/s", against="native"))
@contextmanager
def disk_random(environment: Environment) -> Iterator[Sides]:
    with _cached(environment, random_reads, _drop_everything) as sides:
        yield sides
