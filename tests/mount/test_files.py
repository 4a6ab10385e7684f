"""Open files behave as on a local file system."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import threading

import pytest

from tests.mount.conftest import fails_with

MIB = 1 << 20


def put(path, data: bytes):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * MIB + 17])
def test_what_is_written_is_read(here, size):
    data = random.Random(size).randbytes(size)
    path = put(here / "f", data)
    assert path.read_bytes() == data
    assert path.stat().st_size == size


def test_random_writes(here, tmp_path):
    rng = random.Random(7)
    put(here / "f", bytes(MIB))
    put(tmp_path / "f", bytes(MIB))
    with open(here / "f", "r+b", buffering=0) as ours, open(tmp_path / "f", "r+b", buffering=0) as theirs:
        for _ in range(300):
            offset, data = rng.randrange(MIB + 5000), rng.randbytes(rng.randrange(1, 9000))
            for file in (ours, theirs):
                file.seek(offset)
                file.write(data)
        ours.seek(0)
        theirs.seek(0)
        assert ours.read() == theirs.read()
    assert (here / "f").read_bytes() == (tmp_path / "f").read_bytes()


def test_append(here):
    path = put(here / "f", b"one")
    first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    os.write(first, b"two")
    os.write(second, b"three")
    os.write(first, b"four")
    os.close(first)
    os.close(second)
    assert path.read_bytes() == b"onetwothreefour"


def test_truncate(here):
    path = put(here / "f", b"0123456789")
    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    os.truncate(path, 6)
    assert path.read_bytes() == b"0123\0\0"
    with open(path, "r+b") as file:
        file.truncate(2)
        assert os.fstat(file.fileno()).st_size == 2
    assert path.read_bytes() == b"01"
    with open(path, "wb"):
        pass
    assert path.stat().st_size == 0


def test_truncating_open_drops_the_content(here):
    path = put(here / "f", b"long content")
    with open(path, "wb") as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_shared_mapping(here):
    path = put(here / "f", bytes(3 * mmap.PAGESIZE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[10:15] = b"hello"
        mapping[mmap.PAGESIZE * 2] = 7
        mapping.flush()
        assert os.pread(file.fileno(), 5, 10) == b"hello"
    assert path.read_bytes()[10:15] == b"hello"
    assert path.read_bytes()[mmap.PAGESIZE * 2] == 7


def test_stores_after_close_are_kept(tree, here):
    path = put(here / "f", bytes(mmap.PAGESIZE))
    descriptor = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(descriptor, mmap.PAGESIZE)
    os.close(descriptor)
    mapping[0:4] = b"late"
    mapping.close()
    tree.command("sync", str(path))
    assert path.read_bytes()[:4] == b"late"


def test_private_mapping_changes_nothing(here):
    path = put(here / "f", b"a" * mmap.PAGESIZE)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
        mapping[0] = 0
        assert mapping[0] == 0
    assert path.read_bytes() == b"a" * mmap.PAGESIZE


def test_a_reader_sees_what_a_writer_writes(here):
    path = put(here / "f", b"before")
    with open(path, "rb", buffering=0) as reader:
        assert reader.read() == b"before"
        with open(path, "r+b", buffering=0) as writer:
            writer.write(b"after!")
            assert os.pread(reader.fileno(), 6, 0) == b"after!"
            writer.seek(0, os.SEEK_END)
            writer.write(b" more")
            assert os.pread(reader.fileno(), 20, 0) == b"after! more"
            assert os.fstat(reader.fileno()).st_size == 11


def test_a_reader_sees_what_is_written_after_the_upload_of_what_it_opened(tree, here):
    path = put(here / "f", b"before")
    with open(path, "rb", buffering=0) as reader:
        assert reader.read() == b"before"
        tree.command("sync", str(path))
        with open(path, "r+b", buffering=0) as writer:
            writer.write(b"after!")
            assert os.pread(reader.fileno(), 6, 0) == b"after!"
        assert os.pread(reader.fileno(), 6, 0) == b"after!"
        tree.command("sync", str(path))
        assert os.pread(reader.fileno(), 6, 0) == b"after!"
    assert path.read_bytes() == b"after!"


def test_unlink_while_open(here):
    path = put(here / "f", b"content")
    with open(path, "r+b", buffering=0) as file:
        path.unlink()
        assert not path.exists()
        assert os.fstat(file.fileno()).st_nlink == 0
        file.write(b"CON")
        assert os.pread(file.fileno(), 20, 0) == b"CONtent"
        put(path, b"another")
        assert os.pread(file.fileno(), 20, 0) == b"CONtent"
    assert path.read_bytes() == b"another"


def test_unlink_while_open_for_reading(here):
    path = put(here / "f", b"content")
    with open(path, "rb", buffering=0) as file:
        path.unlink()
        assert file.read() == b"content"
    assert list(here.iterdir()) == []


def drop_pages(file):
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("meanwhile", ["nothing", "unlinked", "replaced", "renamed", "exchanged"])
def test_a_small_file_opened_again_is_read_without_the_kernels_pages(tree, here, meanwhile):
    """The daemon opens its file no earlier than that; the bytes must be there still."""
    data = random.Random(1).randbytes(100_000)
    path = put(here / "small", data)
    other = put(here / "other", b"other")
    tree.command("sync", str(tree.root))
    assert path.read_bytes() == data
    with open(path, "rb", buffering=0) as file:
        if meanwhile == "unlinked":
            path.unlink()
        elif meanwhile == "replaced":
            os.rename(other, path)
        elif meanwhile == "renamed":
            os.rename(path, here / "new")
        elif meanwhile == "exchanged":
            os.rename(path, here / "aside")
            os.rename(other, path)
        tree.command("sync", str(tree.root))
        drop_pages(file)
        assert file.read() == data
        assert os.fstat(file.fileno()).st_size == len(data)


def test_a_small_file_opened_again_shows_what_is_written(tree, here):
    path = put(here / "small", b"a" * 100_000)
    tree.command("sync", str(tree.root))
    assert path.read_bytes() == b"a" * 100_000
    with open(path, "rb", buffering=0) as reader:
        with open(path, "r+b", buffering=0) as writer:
            writer.write(b"b" * 50_000)
        assert os.pread(reader.fileno(), 100_000, 0) == b"b" * 50_000 + b"a" * 50_000
        tree.command("sync", str(tree.root))
        drop_pages(reader)
        assert os.pread(reader.fileno(), 100_000, 0) == b"b" * 50_000 + b"a" * 50_000
    assert path.read_bytes() == b"b" * 50_000 + b"a" * 50_000


def test_rename_over_an_open_file(here):
    target = put(here / "target", b"old")
    source = put(here / "source", b"new")
    with open(target, "rb") as file:
        os.rename(source, target)
        assert target.read_bytes() == b"new"
        assert file.read() == b"old"
    assert target.read_bytes() == b"new"
    assert not source.exists()


def test_rename_of_a_file_being_written(here):
    with open(here / "a", "wb") as file:
        file.write(b"first")
        file.flush()
        os.rename(here / "a", here / "b")
        file.write(b" second")
    assert (here / "b").read_bytes() == b"first second"
    assert not (here / "a").exists()


def test_nameless_file_gets_a_name(kernel_transport, here):
    descriptor = os.open(here, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(descriptor, b"nameless")
    assert os.fstat(descriptor).st_nlink == 0
    assert list(here.iterdir()) == []
    follow = 0x400
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.linkat(-100, f"/proc/self/fd/{descriptor}".encode(), -100, os.fsencode(here / "named"), follow) == 0
    os.write(descriptor, b" no more")
    os.close(descriptor)
    assert (here / "named").read_bytes() == b"nameless no more"
    assert stat.S_IMODE((here / "named").stat().st_mode) == 0o640


def test_nameless_file_vanishes(kernel_transport, here):
    descriptor = os.open(here, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(descriptor, b"x")
    os.close(descriptor)
    assert list(here.iterdir()) == []


def test_exclusive_creation(here):
    path = put(here / "f", b"")
    with pytest.raises(FileExistsError):
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_holes(here):
    path = here / "f"
    with open(path, "wb") as file:
        file.truncate(MIB)
        file.seek(512 * 1024)
        file.write(b"x" * 4096)
        file.flush()
        assert os.fstat(file.fileno()).st_blocks * 512 < MIB
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 512 * 1024
        assert os.lseek(file.fileno(), 512 * 1024, os.SEEK_HOLE) == 512 * 1024 + 4096
        with fails_with(errno.ENXIO):
            os.lseek(file.fileno(), 2 * MIB, os.SEEK_DATA)
    content = path.read_bytes()
    assert content[512 * 1024 : 512 * 1024 + 4096] == b"x" * 4096
    assert content.count(0) == MIB - 4096


def test_fallocate(here):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    keep_size, punch_hole, zero_range = 1, 2, 16
    with open(here / "f", "w+b", buffering=0) as file:
        number = file.fileno()
        os.posix_fallocate(number, 0, 100_000)
        assert os.fstat(number).st_size == 100_000
        assert libc.fallocate(number, keep_size, 0, 300_000) == 0
        assert os.fstat(number).st_size == 100_000
        assert os.fstat(number).st_blocks * 512 >= 300_000
        os.pwrite(number, b"x" * 100_000, 0)
        assert libc.fallocate(number, keep_size | punch_hole, 4096, 8192) == 0
        assert os.pread(number, 100_000, 0) == b"x" * 4096 + bytes(8192) + b"x" * (100_000 - 12288)
        if libc.fallocate(number, zero_range, 0, 4096) == 0:
            assert os.pread(number, 4096, 0) == bytes(4096)
        else:
            assert ctypes.get_errno() == errno.EOPNOTSUPP


def test_copy_file_range(here):
    data = random.Random(3).randbytes(MIB)
    put(here / "a", data)
    with open(here / "a", "rb") as source, open(here / "b", "wb") as target:
        done = 0
        while done < MIB:
            done += os.copy_file_range(source.fileno(), target.fileno(), MIB - done)
        assert os.copy_file_range(source.fileno(), target.fileno(), 100, 0, MIB) == 100
    assert (here / "b").read_bytes() == data + data[:100]


def test_fsync(here):
    with open(here / "f", "wb") as file:
        file.write(b"safe")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    directory = os.open(here, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    assert (here / "f").read_bytes() == b"safe"


def test_locks(here):
    path = put(here / "f", b"")
    with open(path, "r+b") as one, open(path, "r+b") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.lockf(one, fcntl.LOCK_EX, 10)
        child = os.fork()
        if child == 0:
            try:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
            except OSError as error:
                os._exit(error.errno in {errno.EAGAIN, errno.EACCES})
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_ioctl_is_refused(here):
    with open(put(here / "f", b"x"), "rb") as file, fails_with(errno.ENOTTY):
        fcntl.ioctl(file, 0x1234, b"")


def test_many_writers_of_one_file(here):
    path = put(here / "f", bytes(64 * 4096))

    def fill(number: int) -> None:
        with open(path, "r+b", buffering=0) as file:
            for block in range(number, 64, 8):
                os.pwrite(file.fileno(), bytes([number]) * 4096, block * 4096)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"".join(bytes([block % 8]) * 4096 for block in range(64))


def test_writing_clears_set_user_id(root, here):
    path = put(here / "f", b"#!")
    os.chown(path, 1000, 1000)
    os.chmod(path, 0o6777)
    child = os.fork()
    if child == 0:
        os.setgid(1001)
        os.setuid(1001)
        try:
            with open(path, "r+b", buffering=0) as file:
                file.write(b"x")
        except PermissionError:
            os._exit(77)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in {0, 77}
    if path.read_bytes() == b"x!":
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
    else:
        os.chown(path, 1001, 1001)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777


def test_empty_write_open_changes_nothing(here):
    path = put(here / "f", b"same")
    before = path.stat()
    with open(path, "r+b"):
        assert path.stat().st_mtime_ns == before.st_mtime_ns
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, 4, before.st_ino)
