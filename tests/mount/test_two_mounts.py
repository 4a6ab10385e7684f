"""Two mounts of one user on one bucket: the daemon of one uploads for both, and the writers of the other know of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker

FILE, OTHER = "file", "other"


@pytest.fixture(scope="module", params=["back", "through"])
def served(module_trees: TreeMaker, s3_server, request) -> Iterator[MountedTree]:
    """The second of two mounts: the first was there before, and carries out what both owe."""
    bucket, environment = s3_server.create_bucket(), s3_server.environment()
    first = module_trees(f"s3://{bucket}/first", environment).mount()
    (first.root / "mine").write_bytes(b"")
    first.command("sync", str(first.root))
    places = {name: value for name, value in first.env.items() if name.startswith("FSDRIVER_")}
    second = module_trees(f"s3://{bucket}/second", {**environment, **places}).mount(f"write={request.param}")
    yield second
    second.umount()
    first.umount()


def close_one_of_two(descriptor: int) -> None:
    """What a shell does with the file of a redirection before its command begins."""
    os.close(os.dup(descriptor))


def goes_on(descriptor: int, root: Path) -> None:
    os.write(descriptor, b" and after")


def is_synced(descriptor: int, root: Path) -> None:
    os.write(descriptor, b" and")
    os.fsync(descriptor)
    os.write(descriptor, b" after")


def is_renamed(descriptor: int, root: Path) -> None:
    (root / FILE).rename(root / OTHER)
    os.write(descriptor, b" and after")


def is_linked(descriptor: int, root: Path) -> None:
    (root / OTHER).hardlink_to(root / FILE)
    os.write(descriptor, b" and after")


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("then", [goes_on, is_synced, is_renamed, is_linked])
def test_a_file_that_was_uploaded_while_it_is_open(
    served: MountedTree, then: Callable[[int, Path], None], existing: bool
) -> None:
    root = served.root / f"{then.__name__}-{existing}"
    root.mkdir()
    if existing:
        (root / FILE).write_bytes(b"what was there before")
        served.command("sync", str(root))
    descriptor = os.open(root / FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, b"before")
    close_one_of_two(descriptor)
    served.command("sync", str(root))
    then(descriptor, root)
    close_one_of_two(descriptor)
    served.command("sync", str(root))
    os.write(descriptor, b".")
    os.close(descriptor)
    names = {is_renamed: [OTHER], is_linked: [FILE, OTHER]}.get(then, [FILE])
    assert sorted(os.listdir(root)) == names
    served.command("sync", str(root))
    served.command("refresh", str(root))
    assert sorted(os.listdir(root)) == names
    for name in names:
        assert (root / name).read_bytes() == b"before and after."
