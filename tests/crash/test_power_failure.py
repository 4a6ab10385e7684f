"""The power fails: what was synced is there, and what was not never replaces what is good."""

from __future__ import annotations

import contextlib
import os
import sqlite3

import pytest

from tests.crash.disk import Disk
from tests.mount.conftest import MountedTree, opened
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy
from tests.waiting import wait_for

Powered = tuple[MountedTree, Disk, FaultyProxy, Foreign]
SIZE = 100_000


def hold_uploads(proxy: FaultyProxy) -> None:
    proxy.fail(10_000, hold=True, method="PUT")


def save(path, data: bytes, *, synced: bool) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def after_failure(powered: Powered) -> dict[str, bytes]:
    """The power fails; returns what the next mount shows, which is what the bucket then holds as well."""
    powered[1].cut_power()
    return after_restart(powered)


def after_restart(powered: Powered) -> dict[str, bytes]:
    tree, disk, proxy, foreign = powered
    disk.restart(tree)
    proxy.release()
    tree.mount()
    shown = {path.name: path.read_bytes() for path in tree.root.iterdir()}
    tree.umount()
    assert {key: foreign.get(key) for key in foreign.keys()} == shown  # noqa: SIM118
    return shown


def test_what_was_synced_is_there(powered: Powered) -> None:
    tree, _, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    save(tree.root / "synced and closed", b"1" * SIZE, synced=True)
    save(tree.root / "closed and synced", b"2" * SIZE, synced=False)
    with opened(tree.root / "closed and synced", os.O_RDONLY) as file:
        os.fsync(file)
    with opened(tree.root / "open", os.O_WRONLY | os.O_CREAT) as file:
        os.write(file, b"3" * SIZE)
        os.close(os.dup(file))
        os.fsync(file)
        with opened(tree.root / "written on", os.O_WRONLY | os.O_CREAT) as other:
            os.write(other, b"4" * SIZE)
            os.fsync(other)
            os.write(other, b"5" * SIZE)
            powered[1].cut_power()
    shown = after_restart(powered)
    assert shown.pop("written on").startswith(b"4" * SIZE)
    assert shown == {
        "synced and closed": b"1" * SIZE,
        "closed and synced": b"2" * SIZE,
        "open": b"3" * SIZE,
    }


@pytest.mark.parametrize(("flag", "opened_before"), [(os.O_SYNC, True), (os.O_DSYNC, False)])
def test_synchronous_writes_are_there(powered: Powered, flag: int, opened_before: bool) -> None:
    tree, _, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    before = os.open(tree.root / "f", os.O_WRONLY | os.O_CREAT) if opened_before else -1
    with opened(tree.root / "f", os.O_WRONLY | os.O_CREAT | flag) as file:
        os.write(file, b"synchronous")
        os.pwrite(file, b"S", 0)
        powered[1].cut_power()
    if opened_before:
        with contextlib.suppress(OSError):
            os.close(before)
    assert after_restart(powered) == {"f": b"Synchronous"}


def test_a_checkpoint_is_the_old_or_the_new(powered: Powered) -> None:
    tree, disk, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    save(tree.root / "checkpoint", b"1" * SIZE, synced=True)
    save(tree.root / "checkpoint.tmp", b"2" * SIZE, synced=True)
    (tree.root / "checkpoint.tmp").rename(tree.root / "checkpoint")
    disk.commit_names()
    shown = after_failure(powered)
    assert shown["checkpoint"] in (b"1" * SIZE, b"2" * SIZE)
    assert set(shown.values()) <= {b"1" * SIZE, b"2" * SIZE}


def test_a_checkpoint_whose_directory_was_synced_is_the_new(powered: Powered) -> None:
    tree, _, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    save(tree.root / "checkpoint", b"1" * SIZE, synced=True)
    save(tree.root / "checkpoint.tmp", b"2" * SIZE, synced=True)
    (tree.root / "checkpoint.tmp").rename(tree.root / "checkpoint")
    with opened(tree.root, os.O_RDONLY) as directory:
        os.fsync(directory)
    assert after_failure(powered) == {"checkpoint": b"2" * SIZE}


@pytest.mark.parametrize("how", ["append", "in place", "truncate"])
def test_what_was_synced_is_not_lost_with_what_is_written_later(powered: Powered, how: str) -> None:
    """The version that was synced is owed; then the file is changed and closed, and nobody syncs that."""
    tree, disk, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    save(tree.root / "f", b"1" * SIZE, synced=True)
    if how == "truncate":
        save(tree.root / "f", b"2" * SIZE, synced=False)
    else:
        with opened(tree.root / "f", os.O_WRONLY) as file:
            os.pwrite(file, b"2" * SIZE, SIZE if how == "append" else SIZE // 2)
    with opened(tree.root, os.O_RDONLY) as directory:
        os.fsync(directory)
    disk.commit_names()
    shown = after_failure(powered)["f"]
    if how == "truncate":
        assert shown in (b"1" * SIZE, b"2" * SIZE)
    else:
        assert shown.startswith(b"1" * (SIZE // 2))


def test_what_was_not_synced_never_replaces_a_good_object(powered: Powered) -> None:
    tree, disk, proxy, _ = powered
    tree.mount()
    for name in ("f", "renamed over"):
        save(tree.root / name, b"1" * SIZE, synced=False)
    tree.command("sync", str(tree.root))
    hold_uploads(proxy)
    save(tree.root / "f", b"2" * SIZE, synced=False)
    save(tree.root / "other", b"2" * SIZE, synced=False)
    (tree.root / "other").rename(tree.root / "renamed over")
    with opened(tree.root, os.O_RDONLY) as directory:
        os.fsync(directory)  # names and intent are on the disk; the bytes of these files are not
    disk.commit_names()
    shown = after_failure(powered)
    # Whole, if the machine was so slow that what waits had been synced.
    assert {shown["f"], shown["renamed over"]} <= {b"1" * SIZE, b"2" * SIZE}


def test_what_was_uploaded_is_not_owed_again(powered: Powered) -> None:
    """Its staging file was moved into the cache; the journal's word of that was not on the disk."""
    tree, disk, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    save(tree.root / "f", b"1" * SIZE, synced=False)
    save(tree.root / "synced", b"2" * SIZE, synced=True)
    with opened(tree.root, os.O_RDONLY) as directory:
        os.fsync(directory)
    proxy.release()
    tree.command("sync", str(tree.root))
    disk.commit_names()
    assert after_failure(powered) == {"f": b"1" * SIZE, "synced": b"2" * SIZE}


def test_what_waits_for_the_store_is_synced_after_a_while(powered: Powered) -> None:
    tree, _, proxy, _ = powered
    tree.mount()
    hold_uploads(proxy)
    save(tree.root / "f", b"1" * SIZE, synced=False)

    def synced() -> bool:
        with contextlib.closing(sqlite3.connect(powered[1].root / "state" / "catalog.db")) as database:
            return database.execute("SELECT count(*) FROM synced").fetchone() == (1,)

    wait_for(synced)
    with opened(tree.root, os.O_RDONLY) as directory:
        os.fsync(directory)
    assert after_failure(powered) == {"f": b"1" * SIZE}
