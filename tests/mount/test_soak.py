"""Many at once, for a while: writers, readers, a foreign writer and evictions. Nobody sees a mixture, nobody waits for ever.

``FSDRIVER_SOAK`` sets the seconds (20 by default).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, make_tree, wait_for
from tests.mount.foreign import Foreign
from tests.mount.programs.running import SCRIPTS
from tests.mount.programs.scripts import soak

SECONDS = float(os.environ.get("FSDRIVER_SOAK", "20"))
CACHE = "6MiB"
"""Less than the files take together, so that some are always being evicted."""


@pytest.fixture(params=["local", "daemon", "s3"])
def tree(request, trees: TreeMaker) -> MountedTree:
    return make_tree(request.param, trees, request)


def overwrite(foreign: Foreign, stop: threading.Event) -> None:
    """The foreign writer."""
    number = 0
    while not stop.wait(0.2):
        number += 1
        foreign.put(f"shared-{number % soak.SHARED}", soak.make(1000, number, 200_000 + number % 3))


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_nobody_sees_a_mixture(tree: MountedTree, foreign: Foreign) -> None:
    stop = threading.Event()
    tree.mount("ttl=0.5s", "negative_ttl=0.1s", f"cache.size={CACHE}")
    writer = threading.Thread(target=overwrite, args=(foreign, stop))
    writer.start()
    try:
        done = subprocess.run(
            [sys.executable, SCRIPTS / "soak.py", tree.root, str(SECONDS)],
            capture_output=True, text=True, timeout=SECONDS + 150, check=False,
        )  # fmt: skip
    finally:
        stop.set()
        writer.join()
    told = json.loads(done.stdout or "{}")
    assert told.get("wrong") == [], f"{done.stdout}{done.stderr}\n{tree.log()[-4000:]}"
    assert done.returncode == 0
    for kind in ("read", "replace", "rewrite", "parts", "unlink", "rename"):
        assert told["counts"].get(kind)
    wait_for(lambda: tree.status()["pending"] == 0)
    tree.command("refresh", str(tree.root))
    keys = foreign.keys()
    stored = {key: foreign.get(key) for key in keys}
    assert {key: fault for key, data in stored.items() if (fault := soak.check(data))} == {}
    shown = {name: (tree.root / name).read_bytes() for name in os.listdir(tree.root)}
    assert shown == stored
    status = tree.status()
    assert status["in_flight"] == 0
    assert status["open_files"] == 0
