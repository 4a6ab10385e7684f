"""Reads of a file that is wholly in the cache, against the same reads of a plain file on the same disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environment import GIB, Environment, Mount, write_random
from benchmarks.harness import Goal, Pair, figure
from benchmarks.workloads import random_reads, read_through


@contextmanager
def _both(environment: Environment) -> Iterator[tuple[Mount, Path, Path]]:
    """A mounted file of 1 GiB, in the cache, and a plain one; both in the kernel's pages."""
    bucket, key = environment.large_object(GIB)
    with environment.folder() as folder, environment.mount(f"s3://{bucket}") as mount:
        plain, ours = folder / "plain", mount.directory / key
        write_random(plain, GIB)
        read_through(plain)
        read_through(ours)
        yield mount, ours, plain


@figure(
    "warm-random-4k", "warm random 4 KiB reads of a 1 GiB file", unit="reads/s", against="plain file", goal=Goal(0.9)
)
@contextmanager
def warm_random(environment: Environment) -> Iterator[Pair]:
    with _both(environment) as (mount, ours, plain):
        pair = Pair(lambda: random_reads(ours), lambda: random_reads(plain))
        yield pair
        pair.facts |= {"passthrough": mount.status().get("passthrough")}


@figure(
    "warm-sequential", "warm sequential 1 MiB reads of a 1 GiB file", unit="MB/s", against="plain file", goal=Goal(0.9)
)
@contextmanager
def warm_sequential(environment: Environment) -> Iterator[Pair]:
    with _both(environment) as (mount, ours, plain):
        pair = Pair(lambda: read_through(ours), lambda: read_through(plain))
        yield pair
        pair.facts |= {"passthrough": mount.status().get("passthrough")}
