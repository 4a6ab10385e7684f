"""Many files moved from one S3 tier to another: copied, verified, removed where they were."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from obstore import put_async

from benchmarks.environment import Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from benchmarks.peers import PEERS, program_of
from fsdriver.backends import open_backend
from fsdriver.config import BackendConfig
from fsdriver.runtime import on_loop, run
from fsdriver.testing.servers import S3Service
from fsdriver.tiers.records import Move
from fsdriver.tiers.sqlite_catalog import SqliteCatalog
from fsdriver.tiers.stack import Stack
from fsdriver.tiers.tier import Tier
from fsdriver.tiers.working import Pace, TierWorker

FILES: Final = 10_000
SIZE: Final = 100 << 10
AT_ONCE: Final = 16


class _Unlocked:
    """Nobody else is there."""

    held = True

    def take(self) -> bool:
        return True

    def release(self) -> None:
        pass


@workload(
    Figure("moves", "10,000 x 100 KiB to another S3 tier, of rclone move", "files/s", against="rclone", limit=0.7)
)
@contextmanager
def moves(environment: Environment) -> Iterator[Sides]:
    rclone = program_of(PEERS["rclone"])
    yield Sides({"fsdriver": lambda: _ours(environment), "rclone": lambda: _rclone(environment, rclone)})


def _ours(environment: Environment) -> Values:
    service = environment.service
    buckets = _filled(environment)
    with tempfile.TemporaryDirectory() as place:
        tiers = [
            Tier(name, *open_backend(name, _config(service, bucket)))
            for name, bucket in zip(("hot", "cold"), buckets, strict=True)
        ]
        catalog = SqliteCatalog(Path(place) / "tiers.db")
        stack = Stack(tiers, catalog, Path(place))
        try:
            seconds = run(_move_all(stack))
        finally:
            run(_close(stack))
            run(catalog.close())
    return _checked(environment, buckets, seconds)


def _config(service: S3Service, bucket: str) -> BackendConfig:
    return BackendConfig(
        url=f"s3://{bucket}",
        endpoint=service.endpoint,
        access_key_id=service.access_key,
        secret_access_key=service.secret_key,
        pool_size=AT_ONCE * 2,
    )


async def _move_all(stack: Stack) -> float:
    await on_loop()
    objects, _ = await stack.finder.list("", delimiter=False, start_after="")
    owed = [Move(key, record.version, "cold", ("hot",), "bench", record.size) for key, record in objects]
    began = time.perf_counter()
    await stack.catalog.owe(stack.identity, owed)
    worker = TierWorker(stack, _Unlocked(), "bench", Pace(at_once=AT_ONCE))
    worker.wake()
    if not await worker.settled(None):
        raise WrongContent("not all files were moved")
    return time.perf_counter() - began


async def _close(stack: Stack) -> None:
    await on_loop()
    await stack.close()


def _rclone(environment: Environment, program: str) -> Values:
    service = environment.service
    buckets = _filled(environment)
    remote = "type = s3\nprovider = Other\nregion = us-east-1\nforce_path_style = true\n"
    keys = f"access_key_id = {service.access_key}\nsecret_access_key = {service.secret_key}\nendpoint = {service.endpoint}\n"
    with tempfile.NamedTemporaryFile("w") as config:
        # Two remotes, as two services are: it carries the bytes itself.
        config.write(f"[one]\n{remote}{keys}[two]\n{remote}{keys}")
        config.flush()
        began = time.perf_counter()
        subprocess.run(
            [program, f"--config={config.name}", "move", f"one:{buckets[0]}", f"two:{buckets[1]}",
             f"--transfers={AT_ONCE}", f"--checkers={AT_ONCE}"],
            check=True, capture_output=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    return _checked(environment, buckets, seconds)


def _filled(environment: Environment) -> Sequence[str]:
    """Two new buckets, the first of them with all files."""
    buckets = [environment.service.create_bucket(), environment.service.create_bucket()]
    store, body = environment.store(buckets[0]), os.urandom(SIZE)

    async def fill() -> None:
        names = iter(range(FILES))

        async def work() -> None:
            for number in names:
                await put_async(store, f"{number % 100:02}/{number:05}", number.to_bytes(4, "big") + body[4:])

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    asyncio.run(fill())
    return buckets


def _checked(environment: Environment, buckets: Sequence[str], seconds: float) -> Values:
    source, target = (
        [one for page in environment.store(bucket).list() for one in page if one["size"]] for bucket in buckets
    )
    if source or len(target) != FILES or any(one["size"] != SIZE for one in target):
        raise WrongContent(f"{len(source)} files are left, {len(target)} arrived")
    return {"files/s": FILES / seconds}
