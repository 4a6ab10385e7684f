"""Classes of POSIX behaviour that public suites look at, as one table: each on a local route, without passthrough, and on S3."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import fails_with

pytestmark = [pytest.mark.mount]
MIB = 1 << 20


def link_counts(here: Path) -> None:
    (here / "f").write_bytes(b"x")
    os.link(here / "f", here / "g")
    assert (here / "f").stat().st_nlink == (here / "g").stat().st_nlink == 2
    with (here / "f").open("rb") as file:
        os.unlink(here / "g")
        assert os.fstat(file.fileno()).st_nlink == 1
        os.unlink(here / "f")
        assert os.fstat(file.fileno()).st_nlink == 0
        assert file.read() == b"x"
    (here / "d" / "inner").mkdir(parents=True)
    assert (here / "d").stat().st_nlink == 3
    (here / "d" / "inner").rename(here / "inner")
    assert (here / "d").stat().st_nlink == 2


def holes(here: Path) -> None:
    descriptor = os.open(here / "f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, b"end", 4 * MIB)
        assert os.fstat(descriptor).st_blocks * 512 < MIB
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 0
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 4 * MIB
        with fails_with(errno.ENXIO):
            os.lseek(descriptor, 5 * MIB, os.SEEK_DATA)
        os.posix_fallocate(descriptor, 0, 8 * MIB)
        assert os.fstat(descriptor).st_size == 8 * MIB
    finally:
        os.close(descriptor)


def unnamed_files(here: Path) -> None:
    descriptor = os.open(here, os.O_TMPFILE | os.O_RDWR, 0o640)
    try:
        os.write(descriptor, b"unnamed")
        assert os.fstat(descriptor).st_nlink == 0
        assert os.listdir(here) == []
        os.link(f"/proc/self/fd/{descriptor}", here / "named", src_dir_fd=descriptor, follow_symlinks=True)
    finally:
        os.close(descriptor)
    assert (here / "named").read_bytes() == b"unnamed"
    assert stat.S_IMODE((here / "named").stat().st_mode) == 0o640


_HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.{call}(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def locks_end_with_their_process(here: Path) -> None:
    (here / "f").write_bytes(b"")
    for call in ("flock", "lockf"):
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD.format(call=call), str(here / "f")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            take = getattr(fcntl, call)
            with (here / "f").open("r+b") as file:
                with fails_with(errno.EAGAIN, errno.EACCES):
                    take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                holder.kill()
                take(file, fcntl.LOCK_EX)
        finally:
            holder.kill()
            holder.communicate()


def shared_mappings(here: Path) -> None:
    (here / "f").write_bytes(bytes(MIB))
    with (here / "f").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[12345:12350] = b"store"
        mapping.flush()
        assert os.pread(file.fileno(), 5, 12345) == b"store"
    assert (here / "f").read_bytes()[12345:12350] == b"store"


_APPEND = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(200):
    os.write(descriptor, f"{sys.argv[2]}{number:07}\\n".encode())
"""


def appending_processes(here: Path) -> None:
    (here / "f").touch()
    writers = [subprocess.Popen([sys.executable, "-c", _APPEND, str(here / "f"), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    wanted = {f"{name}{number:07}" for name in "ab" for number in range(200)}
    lines = (here / "f").read_text().splitlines()
    assert len(lines) == len(wanted)
    assert set(lines) == wanted


def copied_ranges(here: Path) -> None:
    (here / "f").write_bytes(bytes(range(256)) * 16)
    with (here / "f").open("rb") as source, (here / "g").open("w+b") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 1000, 100, 50) == 1000
        target.seek(50)
        assert target.read() == (bytes(range(256)) * 16)[100:1100]


def renaming_while_reading_a_directory(here: Path) -> None:
    names = {f"{number:03}" for number in range(300)}
    for name in names:
        (here / name).touch()
    seen = []
    with os.scandir(here) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number == 10:
                for name in sorted(names)[-50:]:
                    os.rename(here / name, here / f"new-{name}")
    assert len(seen) == len(set(seen))
    assert names - set(sorted(names)[-50:]) <= set(seen)


def errors_of_paths(here: Path) -> None:
    os.symlink("loop", here / "loop")
    with fails_with(errno.ELOOP):
        (here / "loop").read_bytes()
    with fails_with(errno.ENAMETOOLONG):
        (here / ("x" * 256)).touch()
    (here / ("x" * 255)).touch()
    with fails_with(errno.EXDEV):
        os.link(here / ("x" * 255), "/dev/shm/fsdriver-conformance")
    (here / "file").touch()
    with fails_with(errno.ENOTDIR):
        (here / "file" / "below").touch()
    (here / "d" / "e").mkdir(parents=True)
    with fails_with(errno.EINVAL):
        os.rename(here / "d", here / "d" / "e" / "f")
    with fails_with(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(here / "d")


def running_programs_are_not_written(here: Path) -> None:
    (here / "sleep").write_bytes(Path("/bin/sleep").read_bytes())
    (here / "sleep").chmod(0o755)
    program = subprocess.Popen([here / "sleep", "60"])
    try:
        with fails_with(errno.ETXTBSY):
            (here / "sleep").open("r+b")
    finally:
        program.kill()
        program.wait()


def times(here: Path) -> None:
    (here / "f").write_bytes(b"1")
    before = (here / "f").stat()
    os.utime(here / "f", ns=(1_000_000_001, 2_000_000_003))
    after = (here / "f").stat()
    assert (after.st_atime_ns, after.st_mtime_ns) == (1_000_000_001, 2_000_000_003)
    assert after.st_ctime_ns > before.st_ctime_ns
    os.truncate(here / "f", 100)
    truncated = (here / "f").stat()
    assert truncated.st_mtime_ns > before.st_mtime_ns
    assert truncated.st_ctime_ns > before.st_ctime_ns


BEHAVIOURS: list[Callable[[Path], None]] = [
    link_counts, holes, unnamed_files, locks_end_with_their_process, shared_mappings, appending_processes, copied_ranges,
    renaming_while_reading_a_directory, errors_of_paths, running_programs_are_not_written, times,
]  # fmt: skip


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(posix_tree, behaviour):
    here = posix_tree.root / behaviour.__name__
    here.mkdir()
    behaviour(here)
