"""The parts of the libfuse transport that need no mount."""

from __future__ import annotations

import pytest

from fsdriver.errors import ConfigError
from fsdriver.fuse_mount.libfuse.pages import PageOwners
from fsdriver.fuse_mount.libfuse.paths import HIDDEN
from fsdriver.fuse_mount.transport import choose


@pytest.mark.parametrize(
    ("wanted", "platform", "expected"),
    [
        ("auto", "linux", "kernel"),
        ("auto", "darwin", "libfuse"),
        ("auto", "freebsd14", "libfuse"),
        ("libfuse", "linux", "libfuse"),
        ("kernel", "linux", "kernel"),
    ],
)
def test_the_transport_follows_the_system(wanted, platform, expected):
    chosen, why = choose(wanted, platform)
    assert chosen == expected
    assert why


def test_the_kernel_transport_needs_linux():
    with pytest.raises(ConfigError, match="needs Linux"):
        choose("kernel", "darwin")


def test_the_pages_of_a_path_belong_to_who_was_first():
    owners = PageOwners()
    assert owners.take("/f", 7, handle=1)
    assert owners.take("/f", 7, handle=2)
    assert not owners.take("/f", 8, handle=3)
    owners.release(1)
    owners.release(3)
    assert not owners.take("/f", 8, handle=4)
    owners.release(2)
    assert owners.take("/f", 8, handle=5)


def test_pages_go_with_their_name():
    owners = PageOwners()
    assert owners.take("/d/f", 7, handle=1)
    owners.moved("/d", "/e")
    assert owners.take("/d/f", 8, handle=2)
    assert not owners.take("/e/f", 9, handle=3)
    owners.moved("/d", "/e", exchange=True)
    assert owners.take("/e/f", 8, handle=4)
    assert owners.take("/d/f", 7, handle=5)
    for handle in (1, 2, 4, 5):
        owners.release(handle)
    assert owners.take("/d/f", 1, handle=6)
    assert owners.take("/e/f", 1, handle=7)


def test_pages_of_a_replaced_name_have_no_owner():
    owners = PageOwners()
    assert owners.take("/old", 7, handle=1)
    assert owners.take("/new", 8, handle=2)
    owners.moved("/old", "/new")
    assert owners.take("/new", 7, handle=3)
    owners.release(2)
    assert not owners.take("/new", 8, handle=4)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (".fuse_hidden0000000200000001", True),
        (".fuse_hidden", False),
        (".fuse_hidden00000002000000011", False),
        ("f", False),
    ],
)
def test_names_of_removed_open_files(name, hidden):
    assert bool(HIDDEN.match(name)) is hidden
