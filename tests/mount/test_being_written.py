"""A file that a program goes on writing while it is uploaded: nothing that never was its content gets into the store."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, make_tree
from tests.mount.foreign import Foreign

MIB = 1 << 20
SECONDS = 3.0

PROGRAM = """
import mmap, os, sys, time
path, how, size, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
block = size // 16
file = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(file, size)
mapped = mmap.mmap(file, size) if how == "mapped" else None
generation, end = 0, time.monotonic() + seconds
while time.monotonic() < end:
    generation += 1
    for number in range(16):
        data = bytes([generation % 256]) * block
        if mapped is None:
            os.pwrite(file, data, number * block)
        else:
            mapped[number * block:(number + 1) * block] = data
    os.close(os.dup(file))
print(generation % 256)
"""
"""Writes blocks in order, all with one number, again and again; each time all are written, close(2) of a duplicate commits."""


@pytest.fixture(params=["local", "daemon", "s3"])
def tree(request, trees: TreeMaker) -> MountedTree:
    return make_tree(request.param, trees, request).mount()


def check_one_moment(data: bytes, size: int) -> None:
    """Blocks hold the number of one round, those before a place of the next round already."""
    assert len(data) == size
    blocks = [data[at : at + size // 16] for at in range(0, size, size // 16)]
    numbers = [block[0] for block in blocks]
    rounds = {(one - numbers[-1]) % 256 for one in numbers}
    assert rounds <= {0, 1}, numbers
    assert sum(one != other for one, other in pairwise(numbers)) <= 1, numbers
    # One block may be half written.
    assert sum(len(set(block)) > 1 for block in blocks) <= 1, numbers


@pytest.mark.timeout(180)
@pytest.mark.parametrize("size", [MIB // 2, 16 * MIB, 96 * MIB], ids=["small", "one request", "parts"])
@pytest.mark.parametrize("how", ["written", "mapped"])
def test_no_torn_upload(tree: MountedTree, foreign: Foreign, size: int, how: str) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tree.root / "f"), how, str(size), str(SECONDS)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
        while writer.poll() is None:
            if "f" in foreign.keys():  # noqa: SIM118
                check_one_moment(foreign.get("f"), size)
            with contextlib.suppress(subprocess.TimeoutExpired):
                writer.wait(0.02)
        assert writer.stdout is not None
        last = int(writer.stdout.read())
    assert writer.returncode == 0
    tree.command("sync", str(tree.root))
    assert foreign.get("f") == bytes([last]) * size
