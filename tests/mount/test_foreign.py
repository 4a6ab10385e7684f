"""Changes that another program makes in the bucket: when they show, and what those see who have the old version open."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, another_writer, make_tree, wait_for
from tests.mount.foreign import Foreign

MIB = 1 << 20
LARGE = 24 * MIB


@pytest.fixture(params=["local", "daemon", "s3"])
def tree(request, trees: TreeMaker) -> MountedTree:
    """Not yet mounted; without passthrough, too."""
    return make_tree(request.param, trees, request)


def kinds(folder: Path) -> dict[str, str]:
    """Names in a directory with their kind and content, empty while names come and go."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {p.name: "directory" if p.is_dir() else p.read_text() for p in sorted(folder.iterdir())}
    return {}


def prepare(foreign: Foreign) -> None:
    foreign.put("d/overwritten", b"old content")
    foreign.put("d/same size", b"old")
    foreign.put("d/deleted", b"x")
    foreign.put("d/file to directory", b"x")
    foreign.put("d/directory to file/inside", b"x")
    foreign.put("d/directory that goes/inside", b"x")


BEFORE = {
    "overwritten": "old content", "same size": "old", "deleted": "x", "file to directory": "x",
    "directory to file": "directory", "directory that goes": "directory",
}  # fmt: skip
AFTER = {
    "overwritten": "new", "same size": "new", "added": "added", "file to directory": "directory",
    "directory to file": "now a file", "added directory": "directory",
}  # fmt: skip


def change(foreign: Foreign) -> None:
    foreign.put("d/overwritten", b"new")
    foreign.put("d/same size", b"new")
    foreign.delete("d/deleted")
    foreign.put("d/added", b"added")
    foreign.put("d/added directory/deep/f", b"x")
    foreign.delete("d/file to directory")
    foreign.put("d/file to directory/inside", b"x")
    foreign.delete_below("d/directory to file")
    foreign.put("d/directory to file", b"now a file")
    foreign.delete_below("d/directory that goes")


def seen_and_changed(tree: MountedTree, foreign: Foreign, options: str) -> Path:
    """The directory that was looked at through the mount, and then changed by another writer."""
    prepare(foreign)
    tree.mount(options)
    folder = tree.root / "d"
    assert kinds(folder) == BEFORE
    assert not (folder / "added").exists()
    change(foreign)
    return folder


def test_changes_show_after_the_ttl(tree: MountedTree, foreign: Foreign) -> None:
    folder = seen_and_changed(tree, foreign, "ttl=0.3s,negative_ttl=0.2s")
    wait_for(lambda: kinds(folder) == AFTER)
    assert (folder / "added directory" / "deep" / "f").read_text() == "x"
    wait_for(lambda: not (folder / "deleted").exists())


@pytest.mark.parametrize("path", ["", "d"], ids=["whole tree", "directory"])
def test_changes_show_at_once_after_a_refresh(tree: MountedTree, foreign: Foreign, path: str) -> None:
    folder = seen_and_changed(tree, foreign, "ttl=1h,negative_ttl=1h")
    assert kinds(folder) == BEFORE
    tree.command("refresh", str(tree.root / path))
    assert kinds(folder) == AFTER


def test_refresh_of_one_file(tree: MountedTree, foreign: Foreign) -> None:
    folder = seen_and_changed(tree, foreign, "ttl=1h,negative_ttl=1h")
    for name in ("overwritten", "deleted", "added", "file to directory"):
        tree.command("refresh", str(folder / name))
    assert (folder / "overwritten").read_text() == "new"
    assert not (folder / "deleted").exists()
    assert (folder / "added").read_text() == "added"
    assert os.listdir(folder / "file to directory") == ["inside"]
    assert (folder / "same size").read_text() == "old"


# -- who has the old version open -----------------------------------------------------------------------------------------


def replaced(tree: MountedTree, foreign: Foreign) -> None:
    foreign.put("f", b"new" * 1000)
    tree.command("refresh", str(tree.root))
    assert (tree.root / "f").read_bytes() == b"new" * 1000


def test_an_open_reader_keeps_its_version(tree: MountedTree, foreign: Foreign) -> None:
    old = os.urandom(LARGE)
    foreign.put("f", old)
    tree.mount("ttl=1h")
    with (tree.root / "f").open("rb", buffering=0) as file:
        assert file.read() == old
        replaced(tree, foreign)
        file.seek(0)
        assert file.read() == old
        assert os.fstat(file.fileno()).st_size == LARGE
        foreign.delete("f")
        tree.command("refresh", str(tree.root))
        assert not (tree.root / "f").exists()
        assert os.pread(file.fileno(), 1000, LARGE - 1000) == old[-1000:]


def test_a_reader_of_a_part_gets_no_mixture(tree: MountedTree, foreign: Foreign) -> None:
    """What is here of the old version is read on; the rest is gone, and that is said."""
    foreign.put("f", b"o" * LARGE)
    tree.mount("ttl=1h")
    with (tree.root / "f").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 4096, 0) == b"o" * 4096
        foreign.put("f", b"n" * LARGE)
        tree.command("refresh", str(tree.root))
        assert (tree.root / "f").read_bytes() == b"n" * LARGE
        seen = [_read(file.fileno(), offset) for offset in range(0, LARGE, MIB)]
        assert {bytes([byte]) for data in seen if data for byte in (data[0], data[-1])} <= {b"o"}
        assert seen[0] == b"o" * 4096
    assert (tree.root / "f").read_bytes() == b"n" * LARGE


def _read(descriptor: int, offset: int) -> bytes | None:
    try:
        return os.pread(descriptor, 4096, offset)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return None


def test_a_mapping_keeps_its_version(tree: MountedTree, foreign: Foreign) -> None:
    old = os.urandom(3 * MIB)
    foreign.put("f", old)
    tree.mount("ttl=1h")
    with (tree.root / "f").open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert view[:] == old
        _forget_pages(file.fileno(), view)
    with view:
        replaced(tree, foreign)
        assert view[:] == old
        with (tree.root / "f").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as other:
            assert other[:] == b"new" * 1000
        assert view[:] == old


def _forget_pages(descriptor: int, view: mmap.mmap) -> None:
    """The next look at the mapping asks the file system again."""
    view.madvise(mmap.MADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def test_pages_of_the_old_version_are_never_shown_for_the_new_one(tree: MountedTree, foreign: Foreign) -> None:
    """Same size, same name: only the number of the inode in the kernel keeps the pages apart."""
    foreign.put("f", b"0" * MIB)
    tree.mount("ttl=0s,negative_ttl=0s")
    for number in range(1, 10):
        assert set((tree.root / "f").read_bytes()) == {48 + number - 1}
        foreign.put("f", bytes([48 + number]) * MIB)
        assert set((tree.root / "f").read_bytes()) == {48 + number}


def test_a_writer_that_loses_keeps_its_bytes(tree: MountedTree, foreign: Foreign) -> None:
    foreign.put("f", b"first")
    tree.mount("ttl=1h")
    with (tree.root / "f").open("r+b") as file:
        file.write(b"ours!")
        file.flush()
        foreign.put("f", b"foreign")
    wait_for(lambda: not tree.status()["pending"])
    tree.command("refresh", str(tree.root))
    assert (tree.root / "f").read_bytes() == b"foreign"
    (kept,) = [name for name in os.listdir(tree.root) if name.startswith("f.conflict-")]
    assert (tree.root / kept).read_bytes() == b"ours!"
    assert foreign.get("f") == b"foreign"


def test_a_new_file_never_replaces_a_foreign_one(tree: MountedTree, foreign: Foreign) -> None:
    tree.mount("ttl=1h,negative_ttl=1h")
    assert not (tree.root / "f").exists()
    foreign.put("f", b"foreign")
    (tree.root / "f").write_bytes(b"ours")
    wait_for(lambda: not tree.status()["pending"])
    assert foreign.get("f") == b"foreign"
    assert sorted(map(foreign.get, foreign.keys())) == [b"foreign", b"ours"]


# -- what is written on this host -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 3 * MIB], ids=["small", "large"])
def test_an_open_reader_sees_what_is_appended_here(tree: MountedTree, foreign: Foreign, size: int) -> None:
    """Also when the file is sealed in the cache, uploaded and sealed again meanwhile."""
    foreign.put("log", b"." * size)
    tree.mount("ttl=1h")
    path = tree.root / "log"
    with path.open("rb", buffering=0) as reader:
        assert len(reader.readall()) == size
        for number in range(6):
            with path.open("ab") as writer:
                writer.write(b"line %d\n" % number)
            assert reader.readall() == b"line %d\n" % number
            if number % 2:
                tree.command("sync", str(tree.root))
    assert path.read_bytes() == b"." * size + b"".join(b"line %d\n" % number for number in range(6))
    tree.command("sync", str(tree.root))
    assert foreign.get("log") == path.read_bytes()


def test_tail_follows_a_log(tree: MountedTree, foreign: Foreign, tmp_path: Path) -> None:
    foreign.put("log", b"begin\n")
    tree.mount("ttl=1h")
    seen = tmp_path / "seen"
    with seen.open("wb") as out:
        follower = subprocess.Popen(["tail", "-n", "+1", "-f", tree.root / "log"], stdout=out)
    expected = [b"begin\n"]

    def followed() -> bool:
        return seen.read_bytes() == b"".join(expected)

    try:
        wait_for(followed)
        with (tree.root / "log").open("ab", buffering=0) as writer:
            for number in range(3):
                expected.append(b"kept open %d\n" % number)
                writer.write(expected[-1])
                wait_for(followed)
        for number in range(3):
            expected.append(b"opened again %d\n" % number)
            with (tree.root / "log").open("ab") as writer:
                writer.write(expected[-1])
            wait_for(followed)
            tree.command("sync", str(tree.root))
    finally:
        follower.kill()
        follower.wait()


def test_no_notification_is_sent_for_what_this_mount_does(tree: MountedTree, foreign: Foreign) -> None:
    tree.mount("ttl=1h")
    before = tree.status()["notifications"]
    (tree.root / "d").mkdir()
    for number in range(20):
        (tree.root / "d" / f"{number}").write_bytes(b"x" * 1000)
        os.rename(tree.root / "d" / f"{number}", tree.root / "d" / f"r{number}")
    (tree.root / "d" / "r3").unlink()
    tree.command("sync", str(tree.root))
    assert tree.status()["notifications"] == before
    foreign.put("d/added", b"x")
    tree.command("refresh", str(tree.root / "d"))
    assert tree.status()["notifications"] > before


# -- what is gone before it was fetched -----------------------------------------------------------------------------------


@pytest.fixture(params=["local", "libfuse", "s3"])
def any_tree(request, trees: TreeMaker) -> MountedTree:
    """Not yet mounted."""
    return make_tree(request.param, trees, request)


@pytest.mark.parametrize("ttl", ["0s", "1h"])
@pytest.mark.parametrize("how", ["deleted", "overwritten", "a directory now", "deleted with its directory"])
def test_an_open_file_that_is_gone_is_stale(any_tree: MountedTree, how: str, ttl: str, request) -> None:
    """Reading an open file says ESTALE, whatever became of its name; ENOENT is for names."""
    tree, libfuse = any_tree, "transport=libfuse" in any_tree.options
    if libfuse and how == "a directory now":
        pytest.skip("the kernel gives up an inode of libfuse that changes its type: EIO")
    foreign = another_writer(tree, request)
    files = {"unread": os.urandom(5000), "partly read": os.urandom(LARGE)}
    for name, data in files.items():
        foreign.put(f"d/{name}", data)
    tree.mount(f"ttl={ttl},negative_ttl=0s")
    with contextlib.ExitStack() as stack:
        opened = {}
        for name in files:
            opened[name] = os.open(tree.root / "d" / name, os.O_RDONLY)
            stack.callback(os.close, opened[name])
        assert os.pread(opened["partly read"], 4096, 0) == files["partly read"][:4096]
        for name, data in files.items():
            foreign.delete(f"d/{name}")
            if how == "overwritten":
                foreign.put(f"d/{name}", bytes(len(data)))
            elif how == "a directory now":
                foreign.put(f"d/{name}/inside", b"x")
        if how == "deleted with its directory":
            foreign.delete_below("d")
        if ttl == "1h":
            tree.command("refresh", str(tree.root))
        for name, data in files.items():
            size = len(data)
            for offset in (*range(0, size, MIB), size - 10, size, size + 10, size // 2 + 5000):
                assert _read(opened[name], offset) in {None, data[offset : offset + 4096]}
            if not libfuse:
                assert os.fstat(opened[name]).st_size == size
        assert _read(opened["unread"], 0) is None
