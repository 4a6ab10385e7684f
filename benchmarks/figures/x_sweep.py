"""A sweep of the policy over a catalog of a million objects, in a process of its own; and looking one of them up."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environment import Environment
from benchmarks.harness import Figure, Sides, Values, workload
from fsdriver.cache.heat import DAY, Uses
from fsdriver.runtime import run
from fsdriver.tiers.records import Copy, Record
from fsdriver.tiers.sqlite_catalog import SqliteCatalog

ROWS: Final = 1_000_000
LOOKUPS: Final = 5000
STACK: Final = "bench"
NOW: Final = 1_700_000_000.0

SWEEP: Final = """
import resource, sys, time
from contextlib import aclosing
from pathlib import Path
from fsdriver.config import PolicyConfig
from fsdriver.runtime import run
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.sqlite_catalog import SqliteCatalog
from fsdriver.tiers.sweeping import sweep

async def count(catalog, policy, now):
    async with aclosing(sweep(catalog, "bench", policy, now)) as moves:
        return sum([1 async for _ in moves])

config = {
    "age_threshold": "300d", "idle_threshold": "40d", "promotion_accesses": 9, "demotion_threshold": 0.5,
    "replication": "high_value", "high_value": 1000, "tier": {"nvme": {"max_bytes": "60 GB"}},
}
policy = Policy.of(PolicyConfig.model_validate(config), ("nvme", "hot", "cold"))
catalog = SqliteCatalog(Path(sys.argv[1]))
began, worked = time.perf_counter(), time.process_time()
moves = run(count(catalog, policy, float(sys.argv[2])))
print(time.perf_counter() - began, time.process_time() - worked, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, moves)
"""


def _record(number: int) -> Record:
    """Two thirds lie in the hottest tier, which is over its limit; some are idle for long enough to leave it anyway."""
    tiers = ("nvme", "cold") if number % 5 == 0 else ("nvme",) if number % 3 else ("hot",)
    used = NOW - (number % 50) * DAY
    return Record(
        f"d/{number // 1000:05}/file-{number:08}", f"v{number:x}", 100_000, int((used - DAY) * 1e9),
        {tier: Copy(f"{number:032x}") for tier in tiers}, b"1" * 32, Uses(used - DAY, used, 1 + number % 7),
    )  # fmt: skip


def _fill(path: Path) -> None:
    catalog = SqliteCatalog(path)
    for start in range(0, ROWS, 10_000):
        run(catalog.adopt(STACK, [_record(number) for number in range(start, start + 10_000)]))
    run(catalog.close())


@workload(
    Figure("sweep", "a sweep over 1,000,000 catalog rows, one tier over its limit", "s", limit=30, at_most=True),
    Figure(
        "sweep.processor",
        "the same, by processor time: what a busy machine does not change",
        "cpu s",
        limit=30,
        at_most=True,
    ),
    Figure("sweep.memory", "the most memory its process uses", "MiB", limit=200, at_most=True),
    Figure("sweep.lookup", "looking one of the objects up", "us", limit=100, at_most=True),
)
@contextmanager
def sweeping(environment: Environment) -> Iterator[Sides]:
    with environment.folder() as directory:
        path = directory / "tiers.db"
        _fill(path)
        sides = Sides({})

        def ours() -> Values:
            command = [sys.executable, "-c", SWEEP, str(path), str(NOW)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, worked, memory, moves = printed.split()
            sides.facts["fsdriver"] = {"moves": int(moves)}
            catalog = SqliteCatalog(path)
            keys = [_record(random.randrange(ROWS)).key for _ in range(LOOKUPS)]
            began = time.perf_counter()
            for key in keys:
                assert run(catalog.get(STACK, key)) is not None
            each = (time.perf_counter() - began) / LOOKUPS
            run(catalog.close())
            return {"s": float(seconds), "cpu s": float(worked), "MiB": float(memory), "us": each * 1e6}

        sides.runs = {"fsdriver": ours}
        yield sides
