"""While the store is out of reach: what is known and cached goes on, what is written waits, and goes as soon as it is back."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, fails_with, small_disk, wait_for
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy

Proxied = tuple[MountedTree, FaultyProxy, Foreign]
MIB = 1 << 20
UNANSWERED = (errno.EIO, errno.ETIMEDOUT)


def go(proxy: FaultyProxy, how: str) -> Callable[[], None]:
    """The store goes; returns what brings it back."""
    if how == "refused":
        proxy.refuse()
        return proxy.accept
    if how == "stopped":
        proxy.fail(10**6, hold=True)
        return proxy.release
    proxy.fail(10**6, status=503)
    return proxy.heal


def is_out_of_reach(tree: MountedTree) -> bool:
    return bool(tree.status()["out_of_reach"])


@pytest.mark.parametrize("how", ["refused", "stopped", pytest.param("unavailable", marks=pytest.mark.nightly)])
def test_work_goes_on_and_is_sent_when_the_store_is_back(proxied: Proxied, how: str) -> None:
    tree, proxy, foreign = proxied
    for name in ("known", "changed", "removed", "moved"):
        foreign.put(f"d/{name}", name.encode())
    foreign.put("elsewhere/f", b"never looked at")
    tree.mount("ttl=0.1s", "negative_ttl=0s", "timeout=20s", "retries=1")
    d = tree.root / "d"
    assert {name: (d / name).read_bytes() for name in os.listdir(d)} == {
        name: name.encode() for name in ("known", "changed", "removed", "moved")
    }
    back = go(proxy, how)
    with fails_with(*UNANSWERED):  # also shows that the store is asked no more than for so long
        os.listdir(tree.root / "elsewhere")
    wait_for(lambda: is_out_of_reach(tree))
    assert (d / "known").read_bytes() == b"known"
    assert sorted(os.listdir(d)) == ["changed", "known", "moved", "removed"]
    assert not (d / "none").exists()
    (d / "changed").write_bytes(b"changed offline")
    (d / "new").write_bytes(b"new")
    (d / "taken").write_bytes(b"ours")
    (d / "removed").unlink()
    (d / "moved").rename(d / "target")
    (d / "sub").mkdir()
    with (d / "sub" / "synced").open("wb") as file:
        file.write(b"synced")
        os.fsync(file.fileno())
    assert sorted(os.listdir(d)) == ["changed", "known", "new", "sub", "taken", "target"]
    assert (d / "target").read_bytes() == b"moved"
    foreign.put("d/taken", b"theirs")
    back()
    wait_for(lambda: not tree.status()["pending"])
    assert not is_out_of_reach(tree)
    keys = foreign.keys()
    kept = [key for key in keys if key.startswith("d/taken.conflict-")]
    wanted = ["changed", "known", "new", "sub/synced", "taken", "target"]
    assert sorted(set(keys) - set(kept)) == sorted(["elsewhere/f", *(f"d/{name}" for name in wanted)])
    assert [foreign.get(key) for key in kept] == [b"ours"]
    assert foreign.get("d/taken") == b"theirs"
    assert foreign.get("d/changed") == b"changed offline"
    assert foreign.get("d/target") == b"moved"
    assert foreign.get("d/sub/synced") == b"synced"
    tree.command("umount", str(tree.root), check=False)  # tells of the conflict


def test_names_are_made_where_one_was_made_before(proxied: Proxied) -> None:
    """A program that writes checkpoints has never listed their directory."""
    tree, proxy, foreign = proxied
    foreign.put("checkpoints/0", b"0")
    tree.mount("ttl=0.1s", "negative_ttl=0s", "retries=1")
    (tree.root / "checkpoints" / "1").write_bytes(b"1")
    tree.command("sync", str(tree.root))
    wait_for(lambda: proxy.count("GET", "prefix=p%2Fcheckpoints%2F&") or proxy.count("GET", "delimiter"))
    wait_for(lambda: tree.status()["in_flight"] == 0)
    proxy.refuse()
    wait_for(lambda: _writes(tree.root / "checkpoints" / "2"))
    proxy.accept()
    wait_for(lambda: foreign.keys() == ["checkpoints/0", "checkpoints/1", "checkpoints/2"])
    tree.umount()


def test_a_full_staging_disk(proxied: Proxied, root: None) -> None:
    """write() says ENOSPC; what was closed before stays, and makes room when the store has taken it."""
    tree, proxy, foreign = proxied
    with small_disk(tree.places / "cache", "size=24m"):
        tree.mount("ttl=0.1s", "negative_ttl=0s", "retries=0", "cache.min_free=4MiB", "cache.size=16MiB")
        try:
            (tree.root / "d").mkdir()
            tree.command("sync", str(tree.root))
            proxy.refuse()
            closed = _fill(tree.root / "d")
            assert 1 < len(closed) < 24
            assert {name: (tree.root / "d" / name).read_bytes() for name in closed} == closed
            proxy.accept()
            wait_for(lambda: not tree.status()["pending"])
            assert set(closed) <= {key.removeprefix("d/") for key in foreign.keys()}  # noqa: SIM118 - a method of its own
            assert all(foreign.get(f"d/{name}") == data for name, data in closed.items())
            (tree.root / "d" / "after").write_bytes(MIB * b"x")
            tree.command("sync", str(tree.root))
            assert foreign.get("d/after") == MIB * b"x"
        finally:
            tree.end()


def _fill(directory: Path) -> dict[str, bytes]:
    """Files of 1 MiB, one after the other until there is no room; those that were closed."""
    closed: dict[str, bytes] = {}
    for number in range(100):
        data = os.urandom(MIB)
        try:
            with (directory / str(number)).open("wb", buffering=0) as file:
                if file.write(data) < MIB:
                    raise OSError(errno.ENOSPC, "written in part")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            (directory / str(number)).unlink(missing_ok=True)
            return closed
        closed[str(number)] = data
    raise AssertionError("more was written than the disk holds")


def _writes(path: Path) -> bool:
    try:
        path.write_bytes(b"2")
    except OSError:
        return False
    return True


def test_with_ttl_0_nothing_is_told_that_the_store_does_not_say(proxied: Proxied) -> None:
    tree, proxy, foreign = proxied
    foreign.put("d/f", b"x")
    tree.mount("ttl=0s", "negative_ttl=0s", "retries=0")
    assert os.listdir(tree.root / "d") == ["f"]
    proxy.refuse()
    with fails_with(*UNANSWERED):
        os.listdir(tree.root / "d")
    with fails_with(*UNANSWERED):
        os.stat(tree.root / "d" / "f")
    proxy.accept()
    assert os.listdir(tree.root / "d") == ["f"]
    tree.umount()
