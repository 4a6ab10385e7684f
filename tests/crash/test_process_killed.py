"""SIGKILL hits processes that work through fsspec, without any daemon; nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time

import pytest

from tests.crash import stored
from tests.crash.manifest import Expected
from tests.mount.conftest import MountedTree
from tests.mount.users import REPOSITORY
from tests.waiting import wait_for

WORKERS = ("one", "two")
ROUNDS = int(os.environ.get("FSDRIVER_CRASH_ROUNDS", "2"))
NIGHTLY_ROUNDS = int(os.environ.get("FSDRIVER_CRASH_ROUNDS", "100"))
SEED = os.environ.get("FSDRIVER_CRASH_SEED") or secrets.token_hex(4)


def one_round(tree: MountedTree, expected: dict[str, Expected], chance: random.Random, seed: str, write: str) -> None:
    """All processes work at once on one journal; all are killed, each at a moment of its own."""
    environment = {**tree.env, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    running = []
    for worker in WORKERS:
        manifest = tree.places / f"manifest-{worker}-{seed}"
        command = [sys.executable, "-m", "tests.crash.programs.library", tree.url, manifest, seed, write, worker]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        running.append((worker, manifest, process))
    for _, manifest, process in running:
        wait_for(lambda: process.poll() is not None or (manifest.exists() and manifest.stat().st_size))  # noqa: B023
        assert process.poll() is None, process.communicate()[1]
    for worker, manifest, process in sorted(running, key=lambda _: chance.random()):
        time.sleep(chance.random())
        process.kill()
        process.communicate()
        expected[worker].read(manifest)


def agree(tree: MountedTree, client: object, expected: dict[str, Expected]) -> None:
    """With what the bucket holds once everything was recovered."""
    done = tree.command("recover", tree.url, timeout=300)
    found = stored.bucket_names(client, tree.url)
    wrong = []
    for worker, one in expected.items():
        wrong += one.compare({name: value for name, value in found.items() if name.startswith(f"{worker}/")})
    assert not wrong, "\n".join([*wrong, done.stdout, done.stderr])
    assert stored.unfinished_uploads(client, tree.url) == []
    assert stored.left_on_host(tree.places) == {}


def crash(trees, server, write: str, rounds: int, record) -> None:
    print(f"FSDRIVER_CRASH_SEED={SEED}")  # noqa: T201 - how to repeat a failure
    tree = trees(f"s3://{server.create_bucket()}/p", server.environment())
    chance = random.Random(SEED)
    expected = {worker: Expected() for worker in WORKERS}
    for number in range(rounds):
        one_round(tree, expected, chance, f"{SEED}-{number}", write)
        agree(tree, server.client(), expected)
    counts = sum((one.counts for one in expected.values()), start=Expected().counts)
    group = f"processes of fsspec, write = {write}"
    record(f"reliability:crash:{group}, killed", rounds * len(WORKERS))
    record(f"reliability:crash:{group}, changes acknowledged", sum(counts.values()))
    record(f"reliability:crash:{group}, losses", 0)


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost(trees, s3_server, record_property) -> None:
    crash(trees, s3_server, "back", ROUNDS, record_property)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("write", ["back", "through"])
def test_nothing_acknowledged_is_lost_in_many_rounds(trees, s3_server, record_property, write: str) -> None:
    crash(trees, s3_server, write, NIGHTLY_ROUNDS, record_property)
