"""Moving a sealed file to its place and out of it. Needs the mutex of the cache directory."""

from __future__ import annotations

import os
from pathlib import Path

from . import locks
from .files import LocalFile, same_file


def move_in(path: str, target: str) -> bool:
    """Give a finished file its place; False if it has gone: who wrote it has removed or replaced it meanwhile."""
    try:
        os.rename(path, target)
    except FileNotFoundError:
        if not os.path.lexists(path):
            return False
        folder = Path(target).parent
        for above in (folder.parent, folder):  # `parents=True` would not give the mode to both
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(path, target)
    return True


def move_out(path: Path, target: Path, own: LocalFile | None) -> bool:
    """Rename a sealed file away unless somebody else holds it.

    Parameters
    ----------
    own : LocalFile or None
        The open file whose shared lock is ours.

    Returns
    -------
    bool
        False if it is held, or not there (any more).
    """
    if own is None:
        try:
            file = LocalFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            return False
    elif same_file(path, own.descriptor):
        file = own
    else:
        return False
    if not locks.exclude(file.descriptor):
        # Our processes ask for LOCK_EX under the mutex only: just another user, who was handed the file, can have taken it.
        if own is not None and not locks.share(file.descriptor):
            path.unlink()  # what has no name needs no lock: nobody can come to write it
        return False
    try:
        os.rename(path, target)
    finally:
        # Who waited for the lock looks at the name next, so giving it up now lets nobody in.
        locks.share(file.descriptor)
    return True
