"""While the store of one route hangs, the others are served as ever."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import pytest

from tests.mount.conftest import TreeMaker, wait_for
from tests.servers import FaultyProxy

READERS = 16
CONFIGURATION = """
[backend.hangs]
url = "s3://{hangs}"
endpoint = "{proxy}"
timeout = "1h"

[backend.answers]
url = "s3://{answers}"
endpoint = "{server}"

[[route]]
path = "/hangs"
tiers = ["hangs"]
ttl = "1h"

[[route]]
path = "/answers"
tiers = ["answers"]
ttl = "2s"
"""


@pytest.mark.parametrize("rounds", [30, pytest.param(500, marks=pytest.mark.nightly)])
def test_other_routes_are_served(
    trees: TreeMaker, s3_server, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    """Reads, writes, uploads and listings hang by the dozen on one route, and nothing waits for them on the other."""
    client, hangs, answers = s3_server.client(), s3_server.create_bucket(), s3_server.create_bucket()
    for bucket in (hangs, answers):
        for number in range(READERS):
            client.put_object(Bucket=bucket, Key=f"d/{number}", Body=b"x" * 5000)
    with FaultyProxy(s3_server.endpoint) as proxy:
        tree = trees(None, {name: value for name, value in s3_server.environment().items() if "ENDPOINT" not in name})
        (tree.places / "config.toml").write_text(
            CONFIGURATION.format(hangs=hangs, answers=answers, proxy=proxy.endpoint, server=s3_server.endpoint)
        )
        tree.command("mount", "--config", str(tree.places / "config.toml"), str(tree.root))
        one, other = tree.root / "hangs", tree.root / "answers"
        assert len(os.listdir(one / "d")) == READERS
        before = _work(other, rounds)
        proxy.fail(10**9, hang=True)
        stuck = _keep_busy(one)
        wait_for(lambda: tree.status()["pending"] >= READERS)
        wait_for(lambda: tree.status()["in_flight"] >= 2 * READERS)
        took = _work(other, rounds)
        assert all(thread.is_alive() for thread in stuck)
        assert tree.status()["pending"] >= READERS
        for name, seconds in took.items():
            for when, values in (("", seconds), (" while nothing hangs", before[name])):
                p99 = quantiles(values, n=100, method="inclusive")[98]
                record_property(f"reliability:stall:{name}{when}, p99 ms", round(p99 * 1000, 1))
                record_property(f"reliability:stall:{name}{when}, longest ms", round(max(values) * 1000, 1))
        tree.end()
    wait_for(lambda: not any(thread.is_alive() for thread in stuck))


def _keep_busy(route: Path) -> list[threading.Thread]:
    """Files are written whose uploads hang; reads and listings that hang themselves are returned."""
    for number in range(READERS):
        (route / "d" / f"small-{number}").write_bytes(b"y" * 1000)
        (route / "d" / f"large-{number}").write_bytes(b"y" * (2 << 20))
    calls: list[Callable[[], object]] = []
    for number in range(READERS):
        calls += [(route / "d" / str(number)).read_bytes, lambda n=number: os.listdir(route / f"unknown-{n}")]
    threads = [threading.Thread(target=_suppressed, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def _suppressed(call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r"Errno"):
        call()


def _work(route: Path, rounds: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = defaultdict(list)
    numbers = itertools.cycle(range(READERS))

    def timed(name: str, call: Callable[[], object]) -> None:
        began = time.perf_counter()
        call()
        took[name].append(time.perf_counter() - began)

    for at in range(rounds):
        known, made = route / "d" / str(next(numbers)), route / f"made-{at}"
        timed("stat", known.stat)
        timed("open and read", known.read_bytes)
        timed("list", lambda: os.listdir(route / "d"))
        timed("create", lambda made=made: made.write_bytes(b"z" * 1000))
        timed("unlink", made.unlink)
    return took
