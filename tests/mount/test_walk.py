"""Reading directories: what it costs, and that what the kernel keeps of them is never older than it may be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, wait_for

FOLDERS, FILES = 20, 30


def find(directory: Path) -> list[str]:
    """Paths of ``find -ls``, which asks for the attributes of everything."""
    done = subprocess.run(["find", str(directory), "-ls"], capture_output=True, text=True, check=True, timeout=60)
    return [line.split(maxsplit=10)[10] for line in done.stdout.splitlines()]


def spent(tree: MountedTree, before: dict[str, int]) -> dict[str, int]:
    now = tree.status()["requests"]
    return {name: count - before.get(name, 0) for name, count in now.items() if count != before.get(name, 0)}


@pytest.fixture
def foreign(request, trees) -> tuple[MountedTree, Callable[[str, bytes | None], None]]:
    """An S3 tree with a long time to live, and what another host does to its bucket (None removes)."""
    server = request.getfixturevalue("s3_server")
    bucket = server.create_bucket()
    client = server.client()

    def put(name: str, data: bytes | None) -> None:
        if data is None:
            client.delete_object(Bucket=bucket, Key=f"p/{name}")
        else:
            client.put_object(Bucket=bucket, Key=f"p/{name}", Body=data)

    return trees(f"s3://{bucket}/p", server.environment(), "ttl=600"), put


def test_a_walk_asks_for_pages_and_a_second_one_for_nothing(foreign):
    tree, put = foreign
    names = [f"d{folder:02d}/f{file:02d}" for folder in range(FOLDERS) for file in range(FILES)]
    for name in names:
        put(name, b"x")
    tree.mount()
    mounted = tree.status()
    (before,) = [route["requests"] for route in mounted["routes"]]
    assert len(find(tree.root)) == 1 + FOLDERS + FOLDERS * FILES
    status = tree.status()
    (after,) = [route["requests"] for route in status["routes"]]
    assert after.get("head", 0) == before.get("head", 0)
    assert after.get("list", 0) - before.get("list", 0) <= 4
    assert "LOOKUP" not in spent(tree, mounted["requests"])
    requests = status["requests"]
    assert len(find(tree.root)) == 1 + FOLDERS + FOLDERS * FILES
    assert not {"LOOKUP", "READDIR", "READDIRPLUS"} & set(spent(tree, requests))


def test_a_large_directory_comes_with_its_attributes(foreign):
    tree, put = foreign
    for number in range(300):
        put(f"d/{number:04d}", b"x")
    tree.mount()
    requests = tree.status()["requests"]
    listed = {entry.name: entry.inode() for entry in os.scandir(tree.root / "d")}
    assert len(listed) == 300
    assert all(os.stat(tree.root / "d" / name).st_ino == ino for name, ino in listed.items())
    assert spent(tree, requests).get("LOOKUP", 0) <= 1


def test_kept_names_follow_changes_through_the_mount(here):
    for number in range(5):
        (here / f"a{number}").touch()
    assert len(os.listdir(here)) == len(os.listdir(here)) == 5
    (here / "b").mkdir()
    assert sorted(os.listdir(here)) == ["a0", "a1", "a2", "a3", "a4", "b"]
    (here / "a0").unlink()
    (here / "a1").rename(here / "c")
    (here / "a2").rename(here / "b" / "a2")
    assert sorted(os.listdir(here)) == ["a3", "a4", "b", "c"]
    assert os.listdir(here / "b") == ["a2"]
    os.link(here / "c", here / "d")
    os.symlink("c", here / "e")
    assert sorted(os.listdir(here)) == ["a3", "a4", "b", "c", "d", "e"]


def test_two_readers_of_one_directory_see_one_state_each(here):
    for number in range(400):
        (here / f"{number:03d}").touch()
    with os.scandir(here) as first:
        seen = [next(first).name]
        (here / "new").touch()
        assert len(os.listdir(here)) == 401
        seen += [entry.name for entry in first]
    assert {f"{number:03d}" for number in range(400)} <= set(seen)
    assert len(seen) == len(set(seen))
    assert len(os.listdir(here)) == len(os.listdir(here)) == 401


def test_kept_names_end_with_a_refresh(foreign):
    tree, put = foreign
    put("d/old", b"x")
    tree.mount()
    assert os.listdir(tree.root / "d") == os.listdir(tree.root / "d") == ["old"]
    put("d/new", b"x")
    put("d/old", None)
    tree.command("refresh", str(tree.root / "d"))
    assert os.listdir(tree.root / "d") == ["new"]


def test_kept_names_end_with_the_time_to_live(foreign):
    tree, put = foreign
    put("d/old", b"x")
    tree.mount("ttl=1")
    assert os.listdir(tree.root / "d") == ["old"]
    put("d/new", b"x")
    wait_for(lambda: sorted(os.listdir(tree.root / "d")) == ["new", "old"])
    put("d/new", b"longer")
    wait_for(lambda: (tree.root / "d" / "new").stat().st_size == 6)


def test_a_directory_that_stays_open_is_read_again(foreign):
    tree, put = foreign
    put("d/old", b"x")
    tree.mount("ttl=1")
    descriptor = os.open(tree.root / "d", os.O_RDONLY)
    try:
        assert os.listdir(descriptor) == ["old"]
        put("d/new", b"x")
        wait_for(lambda: sorted(os.listdir(descriptor)) == ["new", "old"])
    finally:
        os.close(descriptor)


def test_the_kernel_gives_back_every_node(tree, here):
    kept = tree.status()["nodes"]
    for number in range(500):
        path = here / f"{number}"
        path.write_bytes(b"x")
        path.rename(here / "moved")
        os.stat(here / "moved")
        os.listdir(here)
        (here / "moved").unlink()
    wait_for(lambda: tree.status()["nodes"] <= kept + 2)
