"""Who may read a file of the mount."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fsdriver.fuse_mount.permissions import Caller, Guarded, above, caller_of, may_read

OWNER, GROUP = 1000, 100
OPEN = Guarded(0o755, 0, 0)
ANYONE = Caller(7, 7)


@pytest.mark.parametrize(
    ("caller", "mode", "granted"),
    [
        (Caller(OWNER, 1), 0o400, True),
        (Caller(OWNER, 1), 0o200, False),
        (Caller(OWNER, GROUP, frozenset({GROUP})), 0o044, False),
        (Caller(7, GROUP), 0o040, True),
        (Caller(7, 7, frozenset({1, GROUP})), 0o040, True),
        (Caller(7, 7, frozenset({1, GROUP})), 0o404, False),
        (Caller(7, GROUP), 0o404, False),
        (ANYONE, 0o004, True),
        (ANYONE, 0o003, False),
        (ANYONE, 0o440, False),
        (Caller(0, 0), 0o000, True),
    ],
)
def test_the_first_class_that_fits_decides(caller: Caller, mode: int, granted: bool) -> None:
    assert may_read(caller, Guarded(mode, OWNER, GROUP), [OPEN]) is granted


@pytest.mark.parametrize(
    ("caller", "modes", "granted"),
    [
        (ANYONE, (0o755, 0o711, 0o001), True),
        (ANYONE, (0o755, 0o756, 0o755), False),
        (ANYONE, (0o770,), False),
        (Caller(OWNER, 1), (0o100,), True),
        (Caller(OWNER, 1), (0o677,), False),
        (Caller(7, GROUP), (0o010, 0o711), True),
        (Caller(7, GROUP), (0o701,), False),
        (Caller(0, 0), (0o000,), True),
    ],
)
def test_every_directory_must_be_searchable(caller: Caller, modes: tuple[int, ...], granted: bool) -> None:
    directories = [Guarded(mode, OWNER, GROUP) for mode in modes]
    assert may_read(caller, Guarded(0o444, 0, 0), directories) is granted


def test_the_caller_is_whom_the_kernel_names() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert caller_of(one) == Caller(os.geteuid(), os.getegid(), frozenset(os.getgroups()))


def test_directories_above_are_looked_at_up_to_the_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o710)
    found = above(str(tmp_path / "mnt"))
    assert len(found) == len(tmp_path.parts)
    assert (found[0].mode & 0o777, found[0].uid) == (0o710, os.getuid())


def test_what_has_an_access_control_list_is_not_judged(tmp_path: Path) -> None:
    entries = ((1, 7, -1), (2, 5, 7), (4, 5, -1), (16, 7, -1), (32, 5, -1))  # owner, user 7, group, mask, others
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, bits, who in entries
    )
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    with pytest.raises(PermissionError):
        above(str(tmp_path / "mnt"))
