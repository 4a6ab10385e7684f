"""What an earlier close, fsync or rename has acknowledged survives the daemon, whatever a program was just doing to the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, kill_daemon, opened
from tests.mount.foreign import Foreign
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
