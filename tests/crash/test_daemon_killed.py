"""SIGKILL hits the daemon of a mount at random moments under load; nothing that was acknowledged is lost.

``FSDRIVER_CRASH_ROUNDS`` sets how often (a few in the usual run), ``FSDRIVER_CRASH_SEED`` repeats a run.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdriver.testing.servers import S3Service
from tests.crash import stored
from tests.crash.manifest import DIRECTORY, Expected, tree_names
from tests.mount.conftest import MountedTree, TreeMaker, kill_daemon
from tests.waiting import wait_for

WRITER = Path(__file__).parent / "programs" / "writer.py"
ROUNDS = int(os.environ.get("FSDRIVER_CRASH_ROUNDS", "8"))
NIGHTLY_ROUNDS = int(os.environ.get("FSDRIVER_CRASH_ROUNDS", "100"))
SEED = os.environ.get("FSDRIVER_CRASH_SEED") or secrets.token_hex(4)
CACHE = "6MiB"
"""Less than the files take together, so that some are always being evicted."""


def one_round(tree: MountedTree, expected: Expected, chance: random.Random, seed: str) -> None:
    """Let the writer work, kill the daemon, and look at what the next one shows."""
    manifest = tree.places / f"manifest-{seed}"
    with subprocess.Popen(
        [sys.executable, WRITER, tree.root, manifest, seed], stderr=subprocess.PIPE, text=True
    ) as writer:
        try:
            wait_for(lambda: writer.poll() is not None or (manifest.exists() and manifest.stat().st_size))
            time.sleep(chance.choice((0.05, 0.2, 0.5, 1.0, 2.0)) * chance.random())
            kill_daemon(tree)
            _, told = writer.communicate(timeout=60)
        finally:
            writer.kill()
    assert writer.returncode == 0, told
    expected.read(manifest)
    tree.mount()
    must_agree(expected, tree)


def must_agree(expected: Expected, tree: MountedTree) -> None:
    wrong = expected.compare(tree_names(tree.root))
    assert not wrong, "\n".join([*wrong, tree.log()[-4000:]])


def crash(tree: MountedTree, client: object, rounds: int, record: Callable[[str, object], None]) -> None:
    print(f"FSDRIVER_CRASH_SEED={SEED}")  # noqa: T201 - how to repeat a failure
    chance = random.Random(SEED)
    expected = Expected()
    tree.mount(f"cache.size={CACHE}")
    tree.options = (*tree.options, f"cache.size={CACHE}")
    for number in range(rounds):
        one_round(tree, expected, chance, f"{SEED} {number}")
    tree.command("sync", str(tree.root), timeout=120)
    must_agree(expected, tree)
    tree.umount()
    files = {name: value for name, value in expected.names.items() if value != DIRECTORY}
    assert stored.bucket_names(client, tree.url) == files
    assert stored.unfinished_uploads(client, tree.url) == []
    assert stored.left_on_host(tree.places) == {}
    report(record, "daemon", rounds, expected.counts)


def report(record: Callable[[str, object], None], group: str, rounds: int, counts: Counter[str]) -> None:
    record(f"reliability:crash:{group} killed", rounds)
    record(f"reliability:crash:{group} killed, changes acknowledged", sum(counts.values()) - counts["synced"])
    record(f"reliability:crash:{group} killed, fsyncs acknowledged", counts["synced"])
    record(f"reliability:crash:{group} killed, losses", 0)


def make(trees: TreeMaker, server: S3Service, *options: str) -> MountedTree:
    return trees(f"s3://{server.create_bucket()}/p", server.environment(), *options)


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost(trees, s3_server, record_property) -> None:
    crash(make(trees, s3_server), s3_server.client(), ROUNDS, record_property)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("options", [(), ("passthrough=off",), ("write=through",)], ids=["back", "daemon", "through"])
def test_nothing_acknowledged_is_lost_in_many_rounds(trees, s3_server, record_property, options) -> None:
    crash(make(trees, s3_server, *options), s3_server.client(), NIGHTLY_ROUNDS, record_property)
