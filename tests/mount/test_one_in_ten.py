"""A store that fails one request in ten, in every way it can: programs notice nothing, and nothing is lost or doubled."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.mount.conftest import MountedTree
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy

FAULTS = [
    {"status": 503, "headers": {"Retry-After": "0"}, "body": b"<Error><Code>SlowDown</Code></Error>"},
    {"status": 500, "body": b"<Error><Code>InternalError</Code></Error>"},
    {"status": 429},
    {"status": 0},
    {"status": 0, "carried_out": True},
    {"status": 0, "carried_out": True, "reset": True},
    {"answer": "cut"},
    {"answer": "reset"},
    {"answer": "long"},
]
FILES = 60
LARGE = 9 << 20


def test_programs_notice_nothing(
    proxied: tuple[MountedTree, FaultyProxy, Foreign], record_property: Callable[[str, object], None]
) -> None:
    tree, proxy, foreign = proxied
    foreign.put("large", bytes(range(256)) * (LARGE >> 8))
    for number in range(FILES):
        foreign.put(f"old/{number}", str(number).encode() * 1000)
    tree.mount("ttl=0.5s", "retries=10")
    for at, fault in enumerate(FAULTS):
        proxy.fail(10**6, every=10 * len(FAULTS), met=10 * at, **fault)  # type: ignore[arg-type]

    def work(number: int) -> None:
        assert (tree.root / "old" / str(number)).read_bytes() == str(number).encode() * 1000
        made = tree.root / "new" / str(number)
        made.write_bytes(b"first")
        made.write_bytes(str(number).encode() * 5000)
        if number % 3 == 0:
            made.rename(tree.root / "new" / f"moved-{number}")
        if number % 3 == 1:
            (tree.root / "old" / str(number)).unlink()

    (tree.root / "new").mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(FILES)))
        assert (tree.root / "large").read_bytes() == bytes(range(256)) * (LARGE >> 8)
        tree.command("sync", str(tree.root))
        (tree.root / "large").rename(tree.root / "renamed")
        assert len(os.listdir(tree.root / "new")) == FILES
    tree.umount()
    new = {f"new/{number}" if number % 3 else f"new/moved-{number}": number for number in range(FILES)}
    old = {f"old/{number}": number for number in range(FILES) if number % 3 != 1}
    assert set(foreign.keys()) == {*new, *old, "renamed"}
    assert all(foreign.get(key) == str(number).encode() * 5000 for key, number in new.items())
    assert all(foreign.get(key) == str(number).encode() * 1000 for key, number in old.items())
    assert foreign.get("renamed") == bytes(range(256)) * (LARGE >> 8)
    injected = sum(proxy.injected.values())
    assert injected
    for fault, count in proxy.injected.items():
        record_property(f"reliability:faults:one request in ten, {fault}", count)
