"""The directories of a cache: private to one user, or refused with the way out."""

from __future__ import annotations

import os
from pathlib import Path

from fsdriver.errors import AccessDenied, ConfigError


def prepare(root: Path, *below: Path) -> None:
    """Make the directories that are missing, mode 0700.

    Raises
    ------
    ConfigError
        They cannot be made.
    AccessDenied
        ``root`` belongs to another user.
    """
    try:
        for directory in (root, *below):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(root, error) from error
    owner = os.stat(root).st_uid
    if owner != os.geteuid():
        raise AccessDenied(
            f"this cache belongs to uid {owner}, and caches are private: set FSDRIVER_CACHE_DIR to one of yours",
            str(root),
        )


def unusable(root: Path, error: Exception) -> ConfigError:
    """The error that says why a cache directory cannot be used."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError(
        f"it cannot be made or written ({reason}): set FSDRIVER_CACHE_DIR or cache.dir to another place", str(root)
    )
