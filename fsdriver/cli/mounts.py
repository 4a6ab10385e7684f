"""Which mount of this program a path lies in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from fsdriver.errors import NotFound
from fsdriver.fuse_mount.mounts import FSTYPE, Mounted, mounts

PLACE: Final = click.types.FuncParamType(Path)
"""Type of an argument that may be in a mount; `click.Path` would ask the mount about it, which hangs if its daemon does."""


def mounted() -> list[Mounted]:
    """All mounts of this program that the process can see."""
    return [mount for mount in mounts() if mount.fstype == FSTYPE]


def locate(path: Path) -> tuple[Path, str]:
    """Mount point above a path, and the path inside the tree (absolute, ``/`` for the mount point itself).

    Raises
    ------
    NotFound
        The path lies in no mount of this program.
    """
    # The last part is not followed: it may be a link of the tree, and a dead mount would not answer.
    wanted = os.path.abspath(path)
    wanted = os.path.join(os.path.realpath(os.path.dirname(wanted)), os.path.basename(wanted))
    known = [mount.directory for mount in mounted()]
    points = [point for point in known if os.path.commonpath([point, wanted]) == point]
    if not points:
        raise NotFound(f"this is not inside an fsdriver mount (mounted: {', '.join(known) or 'none'})", str(path))
    point = max(points, key=len)
    return Path(point), "/" + wanted.removeprefix(point).lstrip("/")
