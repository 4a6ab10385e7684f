"""Fixtures of mounts and servers, and of a disk whose power can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.disk import Disk, can_cut_power
from tests.mount.conftest import MountedTree, TreeMaker, fuse, proxied, trees  # noqa: F401 - fixtures
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy

NEVER = 600
"""Seconds between commits of ext4 by itself."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/crash/" in str(item.path):
            item.add_marker(pytest.mark.mount)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Makes disks whose power can be cut."""
    if not can_cut_power():
        pytest.skip("needs root, loop devices and mkfs.ext4")
    made: list[Disk] = []

    def make(commit: int = NEVER) -> Disk:
        made.append(Disk(tmp_path / f"power{len(made)}", commit))
        made[-1].make()
        return made[-1]

    yield make
    for disk in made:
        disk.end()


@pytest.fixture
def powered(
    make_disk,
    trees: TreeMaker,  # noqa: F811
    s3_server,
    record_property,
) -> Iterator[tuple[MountedTree, Disk, FaultyProxy, Foreign]]:
    """A tree over S3, with cache and state on such a disk, behind a proxy that can keep uploads waiting; not yet mounted."""
    disk = make_disk()
    record_property("reliability:power:power cut at a chosen moment", 1)
    with FaultyProxy(s3_server.endpoint) as proxy:
        environment = {**s3_server.environment(), **disk.environment, "AWS_ENDPOINT_URL": proxy.endpoint}
        tree = trees(f"s3://{s3_server.create_bucket()}/p", environment)
        yield tree, disk, proxy, Foreign(tree, s3_server.client())
        proxy.release()
        tree.end()
