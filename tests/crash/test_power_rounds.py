"""The power fails at random moments under load, round after round on one disk."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.programs.scripts import soak
from tests.waiting import wait_for

SAVER = Path(__file__).parent / "programs" / "saver.py"
ROUNDS = int(os.environ.get("FSDRIVER_CRASH_ROUNDS", "1"))
NIGHTLY_ROUNDS = int(os.environ.get("FSDRIVER_CRASH_ROUNDS", "60"))
SEED = os.environ.get("FSDRIVER_CRASH_SEED") or secrets.token_hex(4)


def told(manifest: Path) -> dict[str, int]:
    """Name → number of the last version, or record, that was promised to survive."""
    promised: dict[str, int] = {}
    for line in manifest.read_text().splitlines():
        name, number = line.split()
        promised[name] = int(number)
    return promised


def look(name: str, data: bytes, promised: dict[str, int]) -> str:
    """What is wrong with a file after a failure."""
    if name.startswith("log-"):
        wanted = promised.get(name, -1) + 1
        records = b"".join(soak.make(0, number, 100) for number in range(wanted))
        return "" if data.startswith(records) else f"{len(data)} bytes, {wanted} records of which were synced"
    if fault := soak.check(data):
        return fault
    number = soak.HEADER.unpack_from(data)[2]
    return "" if number >= promised.get(name, -1) else f"version {number} is older than {promised[name]}"


def rounds(powered, count: int, record) -> None:
    print(f"FSDRIVER_CRASH_SEED={SEED}")  # noqa: T201 - how to repeat a failure
    tree, disk, _, foreign = powered
    chance = random.Random(SEED)
    promised: dict[str, int] = {}
    fsyncs = 0
    tree.mount()
    for number in range(count):
        manifest = tree.places / f"manifest-{number}"
        with subprocess.Popen([sys.executable, SAVER, tree.root, manifest, f"{SEED} {number}"]) as saver:
            wait_for(lambda: saver.poll() is not None or manifest.exists())  # noqa: B023
            for _ in range(chance.randrange(1, 5)):
                time.sleep(chance.random())
                disk.commit_names()
            disk.cut_power()
            saver.kill()
        promised |= told(manifest)
        fsyncs += len(manifest.read_text().splitlines())
        disk.restart(tree)
        tree.mount()
        shown = {path.name: path.read_bytes() for path in tree.root.iterdir()}
        wrong = [f"{name} is gone" for name in promised if name not in shown]
        for name, data in shown.items():
            if ".unsynced-" not in name and not name.endswith(".tmp") and (fault := look(name, data, promised)):
                wrong.append(f"{name}: {fault}")
        assert not wrong, "\n".join([*wrong, tree.log()[-3000:]])
        for name in shown:
            if ".unsynced-" in name:
                (tree.root / name).unlink()
    shown = {path.name: path.read_bytes() for path in tree.root.iterdir()}
    tree.umount()
    assert {key: foreign.get(key) for key in foreign.keys()} == shown  # noqa: SIM118
    record("reliability:power:power cut at a random moment under load", count)
    record("reliability:power:changes promised to survive", fsyncs)
    record("reliability:power:losses", 0)


@pytest.mark.timeout(600)
def test_power_fails_at_random_moments(powered, record_property) -> None:
    rounds(powered, ROUNDS, record_property)


@pytest.mark.nightly
@pytest.mark.timeout(0)
def test_power_fails_at_many_random_moments(powered, record_property) -> None:
    rounds(powered, NIGHTLY_ROUNDS, record_property)
