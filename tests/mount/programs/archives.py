"""Programs that carry whole trees: cp, rsync, tar."""

from __future__ import annotations

import os
import random
from pathlib import Path

from .running import Program, call

SIZES = {"empty": 0, "one": 1, "page": 4096, "odd": 1_048_579, "large": 9_000_001}


def make_material(root: Path) -> Path:
    """A tree with one of everything a file system knows."""
    rng = random.Random(1)
    deep = root / "sub" / "deeper" / "deepest"
    deep.mkdir(parents=True)
    (root / "hollow").mkdir()
    for name, size in SIZES.items():
        (root / "sub" / name).write_bytes(rng.randbytes(size))
    for number in range(40):
        (deep / f"file {number}").write_bytes(rng.randbytes(rng.randrange(3000)))
    (root / "sub" / "sparse").touch()
    os.truncate(root / "sub" / "sparse", 3_000_000)
    (root / "link").symlink_to("sub/one")
    (root / "dangling").symlink_to("nowhere/at all")
    (root / "to directory").symlink_to("sub")
    (root / "absolute").symlink_to("/etc/hostname")
    os.link(root / "sub" / "page", root / "hard")
    os.link(root / "sub" / "page", deep / "harder")
    os.mkfifo(root / "pipe", 0o620)
    (root / "program").write_text("#!/bin/sh\nexit 7\n")
    for path, mode in {"program": 0o755, "sub/one": 0o400, "sub/odd": 0o4711, "hollow": 0o1777, "sub": 0o750}.items():
        (root / path).chmod(mode)
    os.chown(root / "sub" / "large", 1234, 5678)
    os.chmod(root / "sub" / "large", 0o640)
    os.chown(root / "dangling", 4321, 8765, follow_symlinks=False)
    os.setxattr(root / "sub" / "one", "user.colour", b"blue\0\xff")
    os.setxattr(root / "hollow", "user.of.a.directory", b"")
    for number, path in enumerate(sorted(root.rglob("*"), key=lambda path: -len(path.parts))):
        os.utime(path, ns=(0, 1_500_000_000_123_456_789 + number * 1_000_000_007), follow_symlinks=False)
    os.utime(root, ns=(0, -1_000_000_000))
    return root


def cp_archive(root: Path, material: Path) -> list[str]:
    """Into the tree, inside it, over what is there."""
    call("cp", "-a", material, "first", cwd=root)
    call("cp", "-a", "first", "second", cwd=root)
    call("cp", "-a", "--no-target-directory", material, "second", cwd=root)
    call("cp", "--sparse=never", "second/sub/sparse", "dense", cwd=root)
    call("cp", "-al", "second/sub", "linked", cwd=root)
    call("mv", "first/sub", "moved", cwd=root)
    call("rm", "-r", "first", cwd=root)
    for name in ("dense", "."):
        os.utime(root / name, ns=(0, 0))
    return [call("diff", "-r", "--no-dereference", "second/sub", "moved", cwd=root)]


def rsync(root: Path, material: Path) -> list[str]:
    """A second run, by time and size or by checksum, finds nothing to do."""
    options = ["rsync", "-aHX", "--itemize-changes", "--numeric-ids"]
    first = call(*options, f"{material}/", "copy", cwd=root)
    second = call(*options, f"{material}/", "copy", cwd=root)
    third = call(*options, "--checksum", f"{material}/", "copy", cwd=root)
    assert second == ""
    assert third == ""
    with open(root / "copy" / "sub" / "odd", "r+b") as file:
        file.seek(70_000)
        file.write(b"changed")
    (root / "copy" / "extra").write_text("not in the source")
    (root / "copy" / "program").unlink()
    repaired = call(
        *options, "--checksum", "--delete", "--inplace", "--no-whole-file", f"{material}/", "copy", cwd=root
    )
    os.utime(root, ns=(0, 0))
    return [*sorted(first.splitlines()), *sorted(repaired.splitlines())]


def tar(root: Path, material: Path) -> list[str]:
    """Create and extract; what tar compares is equal."""
    flags = ["--xattrs", "--xattrs-include=user.*", "--numeric-owner"]
    call("tar", *flags, "--sort=name", "--sparse", "-C", material, "-cf", "a.tar", ".", cwd=root)
    (root / "out").mkdir()
    call("tar", *flags, "-C", "out", "-xpf", "a.tar", cwd=root)
    compared = call("tar", *flags, "-C", "out", "-df", "a.tar", cwd=root)
    call("tar", *flags, "--sort=name", "-C", "out", "-czf", "b.tar.gz", "--mtime=@0", "sub", cwd=root)
    for name in ("a.tar", "b.tar.gz", "."):
        os.utime(root / name, ns=(0, 0))
    return [compared, call("tar", "-tvf", "b.tar.gz", cwd=root)]


PROGRAMS = [
    Program(cp_archive, times=True, through=True),
    Program(rsync, times=True),
    Program(tar, times=True, varying=("*.tar", "*.tar.gz"), through=True),
]
