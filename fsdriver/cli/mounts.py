"""Which fsdriver mounts this machine has, read from the kernel (proc(5), mountinfo)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsdriver.errors import NotFound

TYPE: Final = "fuse.fsdriver"


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount: what is mounted, and where."""

    source: str
    point: Path


def mounted(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Mounted]:
    """All mounts of this type that the process can see."""
    found = []
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        kind, source, *_ = right.split(" ")
        if kind == TYPE:
            found.append(Mounted(_unescape(source), Path(_unescape(left.split(" ")[4]))))
    return found


def locate(path: Path) -> tuple[Path, str]:
    """Mount point above a path, and the path inside the tree (absolute, ``/`` for the mount point itself).

    Raises
    ------
    NotFound
        The path lies in no fsdriver mount.
    """
    # The path itself is not resolved: it may be a link of the tree, and a stale mount would not answer.
    wanted = Path(os.path.abspath(path))
    wanted = Path(os.path.realpath(wanted.parent)) / wanted.name if wanted.name else wanted
    points = [mount.point for mount in mounted() if wanted == mount.point or mount.point in wanted.parents]
    if not points:
        known = ", ".join(str(mount.point) for mount in mounted()) or "none"
        raise NotFound(f"this is not inside an fsdriver mount (mounted: {known})", str(path))
    point = max(points, key=lambda item: len(item.parts))
    return point, "/" + str(wanted.relative_to(point)).removeprefix(".")


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
