"""What the parts of `fsdriver.testing.filesystem` share: abilities of a filesystem, and made-up content."""

from __future__ import annotations

import random
from typing import ClassVar

import pytest


class Abilities:
    """What the filesystem under test can do; a subclass sets False what it cannot.

    Attributes
    ----------
    handles : bool
        Open files have a position of their own, refuse what their mode does not allow, and stay closed.
    append, update, exclusive : bool
        Modes ``ab``, ``r+b`` and ``xb``.
    abort : bool
        An exception inside ``with fs.open(.., "wb")`` leaves the old object as it was.
    transactions : bool
    empty_directories : bool
    directories : bool
        ``mkdir`` of what exists, ``rmdir`` of what is not empty and ``open`` of a directory fail as in POSIX.
    missing_is_error : bool
        ``rm`` of what does not exist raises FileNotFoundError.
    moves_trees : bool
        ``mv(recursive=True)`` of a directory.
    timestamps : bool
        ``modified`` tells the last change.
    shares_between_processes : bool
        Another process sees the same files.
    empty_ranges : bool
        A range without bytes is no error.
    forks : bool
        An instance made before ``fork`` works in the child.
    """

    handles: ClassVar[bool] = True
    append: ClassVar[bool] = True
    update: ClassVar[bool] = True
    exclusive: ClassVar[bool] = True
    abort: ClassVar[bool] = True
    transactions: ClassVar[bool] = True
    empty_directories: ClassVar[bool] = True
    directories: ClassVar[bool] = True
    missing_is_error: ClassVar[bool] = True
    moves_trees: ClassVar[bool] = True
    timestamps: ClassVar[bool] = True
    shares_between_processes: ClassVar[bool] = True
    empty_ranges: ClassVar[bool] = True
    forks: ClassVar[bool] = True

    def needs(self, *abilities: str) -> None:
        """Skip the test where the filesystem lacks one of the abilities named."""
        for ability in abilities:
            if not getattr(self, ability):
                pytest.skip(f"{type(self).__name__} says that {ability} is not supported")


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes without pattern, the same for the same arguments."""
    return random.Random(f"{size}/{seed}").randbytes(size)
