"""``.fsdriver/`` at the root of the mount: what the mount says about itself, as files. Looked up, never listed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fsdriver.entry import Entry, Kind

DIRECTORY: Final = ".fsdriver"
PROBE: Final = ".probe"
"""Name of the self-test's file (`fuse_mount.passthrough`), there only while the test runs."""


@dataclass(slots=True)
class SyntheticFile:
    """One file whose content is computed when it is opened."""

    render: Callable[[], bytes]
    ino: int


@dataclass(slots=True)
class Probe:
    """The local file behind `PROBE`."""

    descriptor: int
    ino: int


@dataclass(slots=True)
class SyntheticDirectory:
    """``.fsdriver``: its files by name. For who mounted alone: they name what is in directories closed to others."""

    files: Mapping[str, SyntheticFile]
    ino: int
    born_ns: int = field(default_factory=time.time_ns)

    def directory_entry(self, uid: int, gid: int) -> Entry:
        """Attributes of the directory."""
        now = self.born_ns
        return Entry(
            Kind.DIRECTORY, mode=0o500, uid=uid, gid=gid, atime_ns=now, mtime_ns=now, ctime_ns=now, ino=self.ino
        )

    def file_entry(self, file: SyntheticFile, uid: int, gid: int) -> Entry:
        """Attributes of a file; its size is known to a reader only."""
        now = time.time_ns()
        return Entry(Kind.FILE, mode=0o400, uid=uid, gid=gid, atime_ns=now, mtime_ns=now, ctime_ns=now, ino=file.ino)


def make_directory(sources: Mapping[str, Callable[[], Any]]) -> SyntheticDirectory:
    """A directory of JSON files from what returns their documents."""
    first = (1 << 62) + 1

    def rendering(source: Callable[[], Any]) -> Callable[[], bytes]:
        return lambda: json.dumps(source(), indent=2, default=str).encode() + b"\n"

    files = {name: SyntheticFile(rendering(source), first + 1 + n) for n, (name, source) in enumerate(sources.items())}
    return SyntheticDirectory(files, first)
