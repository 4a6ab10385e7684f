"""Names and attributes behave as on a local file system."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mount.conftest import fails_with

_libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2


def renameat2(source, target, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(source))


def test_rename_without_replacing(here):
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    with pytest.raises(FileExistsError):
        renameat2(here / "a", here / "b", NOREPLACE)
    renameat2(here / "a", here / "c", NOREPLACE)
    assert sorted(os.listdir(here)) == ["b", "c"]


def test_rename_exchange(here):
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    renameat2(here / "a", here / "b", EXCHANGE)
    assert (here / "a").read_text() == "b"
    assert (here / "b").read_text() == "a"


def test_rename_replaces(here):
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    os.rename(here / "a", here / "b")
    assert os.listdir(here) == ["b"]
    assert (here / "b").read_text() == "a"


def test_directories_move_with_what_is_in_them(here):
    (here / "d" / "e").mkdir(parents=True)
    (here / "d" / "e" / "f").write_text("deep")
    os.rename(here / "d", here / "moved")
    assert (here / "moved" / "e" / "f").read_text() == "deep"
    assert not (here / "d").exists()
    (here / "empty").mkdir()
    os.rename(here / "moved", here / "empty")
    assert (here / "empty" / "e" / "f").read_text() == "deep"


def test_rename_mistakes(here):
    (here / "d" / "e").mkdir(parents=True)
    (here / "f").write_text("f")
    (here / "empty").mkdir()
    with fails_with(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(here / "empty", here / "d")
    with pytest.raises(NotADirectoryError):
        os.rename(here / "d", here / "f")
    with pytest.raises(IsADirectoryError):
        os.rename(here / "f", here / "d")
    with pytest.raises(FileNotFoundError):
        os.rename(here / "nothing", here / "f")
    with fails_with(errno.EINVAL):
        os.rename(here / "d", here / "d" / "e" / "x")


def test_removing(here):
    (here / "d" / "e").mkdir(parents=True)
    with fails_with(errno.ENOTEMPTY):
        os.rmdir(here / "d")
    with pytest.raises(IsADirectoryError):
        os.unlink(here / "d")
    os.rmdir(here / "d" / "e")
    os.rmdir(here / "d")
    with pytest.raises(FileNotFoundError):
        os.stat(here / "d")
    (here / "f").write_text("")
    with pytest.raises(NotADirectoryError):
        os.rmdir(here / "f")


def test_symlinks(here):
    (here / "target").write_text("content")
    (here / "link").symlink_to("target")
    (here / "broken").symlink_to("nowhere/ünïcödé")
    assert os.readlink(here / "broken") == "nowhere/ünïcödé"
    assert (here / "link").read_text() == "content"
    assert stat.S_ISLNK((here / "link").lstat().st_mode)
    assert (here / "link").lstat().st_size == len("target")


def test_hard_links(here):
    (here / "a").write_text("one")
    os.link(here / "a", here / "b")
    assert (here / "a").stat().st_nlink == (here / "b").stat().st_nlink == 2
    assert (here / "a").stat().st_ino == (here / "b").stat().st_ino
    (here / "b").write_text("changed")
    assert (here / "a").read_text() == "changed"
    os.unlink(here / "a")
    assert (here / "b").read_text() == "changed"
    assert (here / "b").stat().st_nlink == 1
    (here / "c").write_text("")
    with pytest.raises(FileExistsError):
        os.link(here / "b", here / "c")


def test_special_files(here):
    os.mkfifo(here / "fifo", 0o640)
    assert stat.S_ISFIFO((here / "fifo").stat().st_mode)
    os.mknod(here / "plain", stat.S_IFREG | 0o600)
    assert (here / "plain").read_bytes() == b""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{(number := os.open(here, os.O_RDONLY))}/socket")
        os.close(number)
    assert stat.S_ISSOCK((here / "socket").stat().st_mode)


def test_devices(root, here):
    os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    status = (here / "null").stat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(1, 3)


def test_mode_and_owner(root, here):
    path = here / "f"
    path.write_text("")
    os.chmod(path, 0o4751)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4751
    os.chown(path, 12, 34)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o751)


def test_a_set_group_id_directory_passes_its_group_on(root, here):
    os.chown(here, 0, 4321)
    os.chmod(here, 0o2775)
    (here / "f").write_text("")
    (here / "d").mkdir()
    assert (here / "f").stat().st_gid == 4321
    assert (here / "d").stat().st_gid == 4321
    assert (here / "d").stat().st_mode & stat.S_ISGID


def test_times_in_nanoseconds(here):
    path = here / "f"
    path.write_text("x")
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    assert path.stat().st_atime_ns == 1_234_567_890_123_456_789
    assert path.stat().st_mtime_ns == 987_654_321_987_654_321
    with open(path, "r+b") as file:
        file.write(b"y")
        file.flush()
        os.utime(file.fileno(), ns=(5, 1_000_000_007))
    assert path.stat().st_mtime_ns == 1_000_000_007
    assert path.read_bytes() == b"y"
    os.utime(here, ns=(1, 2_000_000_001))
    assert here.stat().st_mtime_ns == 2_000_000_001


def test_extended_attributes(here):
    path = here / "f"
    path.write_text("x")
    os.setxattr(path, "user.colour", b"blue\0\xff")
    os.setxattr(path, "user.empty", b"")
    assert os.getxattr(path, "user.colour") == b"blue\0\xff"
    assert sorted(os.listxattr(path)) == ["user.colour", "user.empty"]
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.colour", b"x", os.XATTR_CREATE)
    with fails_with(errno.ENODATA):
        os.setxattr(path, "user.none", b"x", os.XATTR_REPLACE)
    os.removexattr(path, "user.colour")
    assert os.listxattr(path) == ["user.empty"]
    with fails_with(errno.ENODATA):
        os.getxattr(path, "user.colour")
    with fails_with(errno.EOPNOTSUPP):
        os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0")
    os.setxattr(here, "user.of.directory", b"1")
    assert os.getxattr(here, "user.of.directory") == b"1"


def test_files_speak_about_themselves(tree, here):
    path = here / "f"
    path.write_text("x")
    tree.command("sync", str(path))
    assert os.getxattr(path, "user.fsdriver.tier").decode() in {"file", "s3"}
    assert os.getxattr(path, "user.fsdriver.etag")
    assert os.getxattr(path, "user.fsdriver.state") in {b"cached", b"remote"}
    assert os.listxattr(path) == []
    with pytest.raises(PermissionError):
        os.setxattr(path, "user.fsdriver.etag", b"forged")


NAMES = [
    "plain", "with space", "new\nline", "tab\t", "x" * 255, "ä" * 127, "%41", "100%", "back\\slash", "🦊", "-rf", "*?[]", "~",
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), ".hidden", "..more", "con\x01trol", "trailing.", "a:b",
]  # fmt: skip


def test_names(here):
    for name in NAMES:
        (here / name).write_text(name)
    raw = os.fsencode(here) + b"/not-utf8-\xff\xfe"
    with open(raw, "wb") as file:
        file.write(b"raw")
    assert sorted(os.listdir(os.fsencode(here))) == sorted(
        [os.fsencode(name) for name in NAMES] + [b"not-utf8-\xff\xfe"]
    )
    for name in NAMES:
        assert (here / name).read_text() == name
    with open(raw, "rb") as file:
        assert file.read() == b"raw"
    with fails_with(errno.ENAMETOOLONG):
        (here / ("y" * 256)).write_text("")


def test_many_entries_with_concurrent_changes(here):
    def work(worker: int) -> None:
        for number in range(100):
            (here / f"{worker}-{number}").write_bytes(b"")
            if number % 3 == 0:
                os.unlink(here / f"{worker}-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    wanted = sorted(f"{worker}-{number}" for worker in range(8) for number in range(100) if number % 3)
    assert sorted(os.listdir(here)) == wanted
    with os.scandir(here) as entries:
        assert sorted(entry.name for entry in entries if entry.is_file()) == wanted


def test_cookies_are_stable_while_the_directory_changes(here):
    for number in range(3000):
        (here / f"{number:05}").touch() if number < 500 else None
    seen = []
    with os.scandir(here) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 50 == 0:
                os.unlink(here / entry.name)
                (here / f"new{len(seen)}").touch()
    assert [name for name in sorted(seen) if not name.startswith("new")] == [f"{number:05}" for number in range(500)]


def test_a_removed_working_directory(kernel_transport, here):
    (here / "d").mkdir()
    number = os.open(here / "d", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(here / "d")
    assert os.fstat(number).st_nlink == 0
    with pytest.raises(FileNotFoundError):
        os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=number)
    os.close(number)


def test_statfs(tree):
    status = os.statvfs(tree.root)
    assert status.f_blocks * status.f_frsize == 1 << 50
    assert status.f_namemax == 255


def test_what_the_mount_says_about_itself(tree):
    assert ".fsdriver" not in os.listdir(tree.root)
    assert sorted(os.listdir(tree.root / ".fsdriver")) == ["health.json", "pending.json", "stats.json"]
    assert b'"mountpoint"' in (tree.root / ".fsdriver" / "stats.json").read_bytes()
    with fails_with(errno.EROFS if os.geteuid() == 0 else errno.EACCES):
        (tree.root / ".fsdriver" / "stats.json").write_text("x")
    with fails_with(errno.EROFS if os.geteuid() == 0 else errno.EACCES):
        (tree.root / ".fsdriver" / "new").write_text("x")
