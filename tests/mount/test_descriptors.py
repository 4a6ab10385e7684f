"""A daemon that has no descriptor left: programs are told EMFILE, commands are answered, and it goes on when files are closed."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, make_tree, wait_for
from tests.mount.foreign import Foreign

MIB = 1 << 20
LIMIT = 128
FILES = 2 * LIMIT


@pytest.fixture(params=["local", "daemon", "s3"])
def tree(request, trees: TreeMaker) -> MountedTree:
    return make_tree(request.param, trees, request)


def test_no_descriptor_is_left(tree: MountedTree, foreign: Foreign) -> None:
    for number in range(FILES):
        foreign.put(f"{number}", b"%d" % number * 1000)
    given = ["-o", ",".join(tree.options)] if tree.options else []
    command = [sys.executable, "-m", "fsdriver", "mount", tree.url, str(tree.root), *given]
    limited = ["prlimit", f"--nofile={LIMIT}:{LIMIT}", *command]
    subprocess.run(limited, env=tree.env, check=True, timeout=60, capture_output=True)
    (tree.root / "kept").write_bytes(b"kept")
    assert "128 open files" in tree.log()
    failed: list[int] = []

    def attempt(flags: int, name: str, stack: contextlib.ExitStack) -> None:
        try:
            descriptor = os.open(tree.root / name, flags, 0o600)
            stack.callback(os.close, descriptor)
            if flags == os.O_RDONLY:
                assert os.pread(descriptor, 5000, 0) == name.encode() * 1000
        except OSError as error:
            failed.append(error.errno or 0)

    with contextlib.ExitStack() as stack:
        for number in range(FILES):
            attempt(os.O_RDWR, f"{number}", stack)
        assert len(failed) > FILES // 4
        for number in range(20):
            attempt(os.O_WRONLY | os.O_CREAT, f"new {number}", stack)
            attempt(os.O_RDONLY, f"{number}", stack)
        assert tree.status()["state"] == "mounted"
    assert set(failed) <= {errno.EMFILE, errno.ENFILE}, [errno.errorcode[one] for one in set(failed)]

    def works() -> bool:
        with contextlib.suppress(OSError):
            return (tree.root / "kept").read_bytes() == b"kept"
        return False

    wait_for(works)
    for number in range(FILES):
        assert (tree.root / f"{number}").read_bytes() == b"%d" % number * 1000
    (tree.root / "after").write_bytes(b"after")
    wait_for(lambda: tree.command("sync", str(tree.root), check=False).returncode == 0)
    assert foreign.get("after") == b"after"
    tree.umount()
