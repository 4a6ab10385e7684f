"""What an earlier close, fsync or rename has acknowledged survives the daemon, whatever a program was just doing to the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, kill_daemon, opened
from tests.mount.foreign import Foreign
from tests.mount.peer import Peer
from tests.servers import FaultyProxy

Proxied = tuple[MountedTree, FaultyProxy, Foreign]
AGAIN = os.O_WRONLY | os.O_TRUNC


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def closed_and_stored(tree: MountedTree, proxy: FaultyProxy) -> None:
    (tree.root / "f").write_bytes(b"acknowledged")
    tree.command("sync", str(tree.root))
    proxy.fail(1000, hold=True, method="PUT")


def closed_and_pending(tree: MountedTree, proxy: FaultyProxy) -> None:
    proxy.fail(1000, hold=True, method="PUT")
    (tree.root / "f").write_bytes(b"acknowledged")


def renamed_and_pending(tree: MountedTree, proxy: FaultyProxy) -> None:
    (tree.root / "e").write_bytes(b"acknowledged")
    tree.command("sync", str(tree.root))
    proxy.fail(1000, hold=True, method="PUT")
    (tree.root / "e").rename(tree.root / "f")


@pytest.fixture(params=[closed_and_stored, closed_and_pending, renamed_and_pending])
def acknowledged(proxied: Proxied, request: pytest.FixtureRequest) -> Proxied:
    """Mounted, with ``f`` closed or renamed, and a store that takes nothing more."""
    tree, proxy, _ = proxied
    tree.mount()
    request.param(tree, proxy)
    return proxied


@pytest.fixture
def peer(proxied: Proxied) -> Iterator[Peer]:
    process = Peer(proxied[0])
    yield process
    process.end()


def test_a_file_that_is_rewritten_is_renamed(acknowledged: Proxied) -> None:
    """The version that was closed last goes along, and is what a crash leaves until the next close."""
    tree, proxy, foreign = acknowledged
    with opened(tree.root / "f", AGAIN) as file:
        os.write(file, b"not closed")
        (tree.root / "f").rename(tree.root / "g")
        kill_daemon(tree)
    proxy.release()
    tree.mount()
    assert files(tree.root) == {"g": b"acknowledged"}
    tree.umount()
    assert {key: foreign.get(key) for key in foreign.keys()} == {"g": b"acknowledged"}  # noqa: SIM118


def test_a_file_that_is_emptied_before_its_last_close(proxied: Proxied, peer: Peer) -> None:
    """The kernel tells of the last close later than of the next open; others, and a crash, have what was closed."""
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(1000, hold=True, method="PUT")
    with opened(tree.root / "f", os.O_WRONLY | os.O_CREAT) as first:
        os.write(first, b"acknowledged")
        os.close(os.dup(first))
        with opened(tree.root / "f", AGAIN) as second:
            os.write(second, b"not")
            assert peer.cat("f") == b"acknowledged"
            os.ftruncate(first, 0)
            assert peer.cat("f") == b"acknowledged"
            os.write(second, b" closed")
            assert (tree.root / "f").stat().st_size == len(b"not closed")
            kill_daemon(tree)
    proxy.release()
    tree.mount()
    assert files(tree.root) == {"f": b"acknowledged"}
    tree.umount()
    assert {key: foreign.get(key) for key in foreign.keys()} == {"f": b"acknowledged"}  # noqa: SIM118


def test_a_file_that_is_emptied_before_its_last_close_is_closed_again(proxied: Proxied, peer: Peer) -> None:
    tree, proxy, foreign = proxied
    tree.mount()
    proxy.fail(1000, hold=True, method="PUT")
    with opened(tree.root / "f", os.O_WRONLY | os.O_CREAT) as first:
        for content in (b"one", b"two, longer", b"3"):
            with opened(tree.root / "f", AGAIN) as again:
                os.write(again, content)
            assert peer.cat("f") == content
        os.close(os.dup(first))
    proxy.release()
    tree.command("sync", str(tree.root))
    assert foreign.get("f") == b"3"
    assert files(tree.root) == {"f": b"3"}
    tree.umount()
    staging = tree.places / "cache" / ".staging"
    assert list(staging.iterdir()) == []


def test_a_file_that_is_rewritten_and_renamed_is_closed(acknowledged: Proxied) -> None:
    tree, proxy, foreign = acknowledged
    (tree.root / "g").write_bytes(b"what the name had before")
    with opened(tree.root / "f", AGAIN) as file:
        os.write(file, b"closed again")
        (tree.root / "f").rename(tree.root / "g")
    assert files(tree.root) == {"g": b"closed again"}
    proxy.release()
    tree.command("sync", str(tree.root))
    assert {key: foreign.get(key) for key in foreign.keys()} == {"g": b"closed again"}  # noqa: SIM118
    assert files(tree.root) == {"g": b"closed again"}


def test_what_was_synced_since_is_renamed_too(acknowledged: Proxied) -> None:
    tree, proxy, _ = acknowledged
    with opened(tree.root / "f", AGAIN) as file:
        os.write(file, b"synced")
        os.fsync(file)
        os.write(file, b", not closed")
        (tree.root / "f").rename(tree.root / "g")
        (tree.root / "g").rename(tree.root / "h")
        kill_daemon(tree)
    proxy.release()
    tree.mount()
    assert set(files(tree.root)) == {"h"}
    assert (tree.root / "h").read_bytes().startswith(b"synced")


def test_a_directory_with_a_file_that_is_rewritten_is_renamed(proxied: Proxied) -> None:
    tree, proxy, _ = proxied
    tree.mount()
    (tree.root / "d").mkdir()
    (tree.root / "d" / "f").write_bytes(b"acknowledged")
    tree.command("sync", str(tree.root))
    proxy.fail(1000, hold=True, method="PUT")
    with opened(tree.root / "d" / "f", AGAIN) as file:
        os.write(file, b"not closed")
        (tree.root / "d").rename(tree.root / "e")
        kill_daemon(tree)
    proxy.release()
    tree.mount()
    assert files(tree.root) == {"e/f": b"acknowledged"}


def test_a_file_that_is_rewritten_gets_another_name(proxied: Proxied) -> None:
    tree, proxy, _ = proxied
    tree.mount()
    closed_and_pending(tree, proxy)
    with opened(tree.root / "f", AGAIN) as file:
        os.write(file, b"not closed")
        os.link(tree.root / "f", tree.root / "g")
        kill_daemon(tree)
    proxy.release()
    tree.mount()
    assert files(tree.root) == {"f": b"acknowledged", "g": b"acknowledged"}
    assert os.path.samefile(tree.root / "f", tree.root / "g")
