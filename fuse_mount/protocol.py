"""The wire format of the kernel's FUSE protocol, version 7.45.

Names, numbers and layouts are those of ``include/uapi/linux/fuse.h``; everything here is pure.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 45
MINOR_LEAST: Final = 31
"""Oldest kernel minor version served (Linux 5.4): FUSE_MAX_PAGES, FUSE_COPY_FILE_RANGE and a fixed INIT layout."""

ROOT_ID: Final = 1
NAME_MAX: Final = 255


class Opcode(IntEnum):
    """``enum fuse_opcode``."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class InitFlag(IntFlag):
    """``FUSE_*`` capabilities of INIT; bits from 32 travel in ``flags2``."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30
    HAS_EXPIRE_ONLY = 1 << 35
    PASSTHROUGH = 1 << 37


class OpenFlag(IntFlag):
    """``FOPEN_*``: how the kernel treats an open file."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


class SetattrValid(IntFlag):
    """``FATTR_*``: which fields of a SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


class Notify(IntEnum):
    """``enum fuse_notify_code``, of those sent."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    INC_EPOCH = 8


WRITE_KILL_SUIDGID: Final = 1 << 2
OPEN_KILL_SUIDGID: Final = 1 << 0
GETATTR_FH: Final = 1 << 0
FSYNC_FDATASYNC: Final = 1 << 0
EXPIRE_ONLY: Final = 1 << 0
MINOR_EPOCH: Final = 44
"""From this minor version on the kernel lets go of all names at once (FUSE_NOTIFY_INC_EPOCH)."""
RENAME_NOREPLACE: Final = 1 << 0
RENAME_EXCHANGE: Final = 1 << 1

BACKING_OPEN: Final = 0x4010E501
"""``FUSE_DEV_IOC_BACKING_OPEN``: its return value is the backing id."""
BACKING_CLOSE: Final = 0x4004E502

IN_HEADER: Final = Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER: Final = Struct("<IiQ")  # len error unique
ATTR: Final = Struct("<6Q10I")
"""ino size blocks atime mtime ctime, their nanoseconds, mode nlink uid gid rdev blksize flags."""
ENTRY_HEAD: Final = Struct("<QQQQII")  # nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec
ATTR_HEAD: Final = Struct("<QII")  # attr_valid attr_valid_nsec dummy
STATX_HEAD: Final = Struct("<QII16x")  # attr_valid attr_valid_nsec flags spare
STATX: Final = Struct("<IIQIIIHxxQQQQqIiqIiqIiqIiIIII112x")
"""mask blksize attributes nlink uid gid mode ino size blocks attributes_mask; atime btime ctime mtime; rdev, dev."""
OPEN_OUT: Final = Struct("<QIi")  # fh open_flags backing_id
INIT_IN: Final = Struct("<IIIII")  # major minor max_readahead flags flags2
INIT_OUT: Final = Struct("<IIIIHHIIHHIIH22x")
"""major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment flags2
max_stack_depth request_timeout."""
STATFS_OUT: Final = Struct("<5Q4I24x")  # blocks bfree bavail files ffree bsize namelen frsize padding
DIRENT: Final = Struct("<QQII")  # ino off namelen type
DIRENT_PLUS: Final = Struct("<QQQQII6Q10IQQII")
"""``struct fuse_direntplus``: ENTRY_HEAD, ATTR and DIRENT in one."""
WRITE_OUT: Final = Struct("<II")  # size padding
LSEEK_OUT: Final = Struct("<Q")
XATTR_OUT: Final = Struct("<II")  # size padding

FORGET_IN: Final = Struct("<Q")
FORGET_ONE: Final = Struct("<QQ")
BATCH_FORGET_IN: Final = Struct("<II")
GETATTR_IN: Final = Struct("<IIQ")  # getattr_flags dummy fh
SETATTR_IN: Final = Struct("<IIQQQQQQIIIIIIII")
"""valid padding fh size lock_owner atime mtime ctime, their nanoseconds, mode unused uid gid unused."""
MKNOD_IN: Final = Struct("<IIII")  # mode rdev umask padding
MKDIR_IN: Final = Struct("<II")  # mode umask
RENAME_IN: Final = Struct("<Q")  # newdir
RENAME2_IN: Final = Struct("<QII")  # newdir flags padding
LINK_IN: Final = Struct("<Q")  # oldnodeid
OPEN_IN: Final = Struct("<II")  # flags open_flags
CREATE_IN: Final = Struct("<IIII")  # flags mode umask open_flags
RELEASE_IN: Final = Struct("<QIIQ")  # fh flags release_flags lock_owner
FLUSH_IN: Final = Struct("<QIIQ")  # fh unused padding lock_owner
READ_IN: Final = Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding
WRITE_IN: Final = Struct("<QQIIQII")  # fh offset size write_flags lock_owner flags padding
FSYNC_IN: Final = Struct("<QII")  # fh fsync_flags padding
SETXATTR_IN: Final = Struct("<II")  # size flags (the short form: FUSE_SETXATTR_EXT is not asked for)
GETXATTR_IN: Final = Struct("<II")  # size padding
INTERRUPT_IN: Final = Struct("<Q")  # unique
FALLOCATE_IN: Final = Struct("<QQQII")  # fh offset length mode padding
LSEEK_IN: Final = Struct("<QQII")  # fh offset whence padding
COPY_FILE_RANGE_IN: Final = Struct("<QQQQQQQ")  # fh_in off_in nodeid_out fh_out off_out len flags
STATX_IN: Final = Struct("<IIQII")  # getattr_flags reserved fh sx_flags sx_mask
BACKING_MAP: Final = Struct("<iIQ")  # fd flags padding
INVAL_INODE_OUT: Final = Struct("<Qqq")  # ino off len
INVAL_ENTRY_OUT: Final = Struct("<QII")  # parent namelen flags

SECOND: Final = 1_000_000_000
STATX_BASIC_STATS: Final = 0x7FF


def split_time(seconds: float) -> tuple[int, int]:
    """A duration in seconds as the pair of seconds and nanoseconds the protocol wants."""
    return divmod(int(seconds * SECOND), SECOND)


def name_of(body: memoryview, offset: int = 0) -> str:
    """The NUL-terminated name at the end of a request body; bytes that are no UTF-8 become surrogates."""
    return bytes(body[offset:-1]).decode("utf-8", "surrogateescape")


def names_of(body: memoryview, offset: int = 0) -> tuple[str, str]:
    """The two NUL-terminated names at the end of a request body."""
    first, second, _ = bytes(body[offset:]).split(b"\0", 2)
    return first.decode("utf-8", "surrogateescape"), second.decode("utf-8", "surrogateescape")


def pack_dirent(ino: int, cookie: int, name: bytes, kind: int) -> bytes:
    """``struct fuse_dirent`` with its name, padded to 8 bytes; ``kind`` is the ``d_type``."""
    return DIRENT.pack(ino, cookie, len(name), kind) + name + bytes(-len(name) % 8)


def unpack_forgets(body: memoryview) -> list[tuple[int, int]]:
    """The (nodeid, nlookup) pairs of BATCH_FORGET."""
    count, _ = BATCH_FORGET_IN.unpack_from(body)
    start = BATCH_FORGET_IN.size
    return list(FORGET_ONE.iter_unpack(body[start : start + count * FORGET_ONE.size]))
