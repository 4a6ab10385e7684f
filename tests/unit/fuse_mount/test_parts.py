"""Options, mount tables, gates and nodes, without a kernel."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from fsdriver.entry import Entry, Kind
from fsdriver.errors import ConfigError
from fsdriver.fuse_mount.device import MS_NODEV, MS_NOSUID, MS_RDONLY
from fsdriver.fuse_mount.gate import Gate
from fsdriver.fuse_mount.inodes import NodeTable, build_skeleton
from fsdriver.fuse_mount.mounts import mounts
from fsdriver.fuse_mount.options import MountOptions
from fsdriver.fuse_mount.service import log_level
from fsdriver.runtime import on_loop, run


def test_options():
    assert MountOptions.parse({}).flags == MS_NOSUID | MS_NODEV
    parsed = MountOptions.parse({"ro": "", "suid": "", "allow_other": "", "passthrough": "off", "max_read": "65536"})
    assert (parsed.flags, parsed.allow_other, parsed.passthrough, parsed.max_read) == (
        MS_RDONLY | MS_NODEV,
        True,
        False,
        65536,
    )
    with pytest.raises(ConfigError, match="did you mean allow_other"):
        MountOptions.parse({"alow_other": ""})
    with pytest.raises(ConfigError, match="neither on nor off"):
        MountOptions.parse({"passthrough": "perhaps"})


def test_levels_of_logging():
    assert log_level("debug") == logging.DEBUG
    with pytest.raises(ConfigError, match=r"FSDRIVER_LOG.*'LOUD' is no level"):
        log_level("LOUD")


def test_mount_table(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "36 35 0:42 / /mnt/with\\040space rw - fuse.fsdriver s3://bucket/a\\040b rw,user_id=1000,group_id=100\n"
        "37 35 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    )
    ours, other = mounts(table)
    assert (ours.directory, ours.fstype, ours.source) == ("/mnt/with space", "fuse.fsdriver", "s3://bucket/a b")
    assert (ours.owner, other.owner) == (1000, None)


def test_gates_let_one_in_at_a_time():
    gate, inside, order = Gate(), [], []

    async def enter(number: int) -> None:
        await on_loop()
        async with gate:
            assert not inside
            inside.append(number)
            await asyncio.sleep(0)
            order.append(inside.pop())

    async def crowd() -> None:
        await on_loop()
        tasks = [asyncio.ensure_future(enter(number)) for number in range(20)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(crowd())
    assert order == [number for number in range(20) if number != 5]


@pytest.fixture
def table() -> NodeTable:
    route = SimpleNamespace(path="/", content=lambda entry: entry.staging or entry.version)
    return NodeTable(build_skeleton([route]))


def file(version: str, ino: int = 7, links: tuple[str, ...] = ()) -> Entry:
    return Entry(Kind.FILE, version=version, ino=ino, links=links)


def test_a_foreign_change_gives_a_name_a_new_node(table):
    first = table.lookup(table.root, "f", file("v1"))
    assert table.lookup(table.root, "f", file("v1")) is first
    second = table.lookup(table.root, "f", file("v2"))
    assert second.nodeid != first.nodeid
    assert first.detached
    table.forget(first.nodeid, 2)
    with pytest.raises(KeyError):
        table[first.nodeid]


def test_nodes_go_when_the_kernel_forgets_them(table):
    directory = table.lookup(table.root, "d", Entry(Kind.DIRECTORY, ino=3))
    inner = table.lookup(directory, "f", file("v1"))
    assert inner.path() == "d/f"
    table.forget(directory.nodeid, 1)
    assert len(table) == 3
    table.forget(inner.nodeid, 1)
    assert len(table) == 1


def test_a_moved_directory_takes_its_paths_along(table):
    directory = table.lookup(table.root, "d", Entry(Kind.DIRECTORY, ino=3))
    inner = table.lookup(directory, "f", file("v1"))
    table.rename(table.root, "d", table.root, "e", exchange=False)
    assert inner.path() == "e/f"


def test_hard_links_share_a_node(table):
    one = table.lookup(table.root, "a", file("v1", links=("a", "b")))
    other = table.lookup(table.root, "b", file("v1", links=("a", "b")))
    assert one is other
    table.unlink(table.root, "a", ("b",))
    assert one.path() == "b"
    table.unlink(table.root, "b")
    assert one.path() is None
