"""A disk whose power can be cut: an ext4 image that is shut down without writing back what nobody has synced.

The ioctl is what xfstests' "godown" uses: the file system ends at once, its journal is not flushed, dirty pages are dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.mount.conftest import MountedTree, kill_daemon
from tests.waiting import wait_for

_SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h)
_NO_LOG_FLUSH: Final = 2


class Disk:
    """A file system (ext4) of its own at ``place``/disk, with cache and state of a tree."""

    def __init__(
        self,
        place: Path,
        commit: int,
        *,
        size: int = 512 << 20,
        make: Sequence[str] = ("mkfs.ext4", "-q", "-F"),
        options: str = "",
    ) -> None:
        self._image = place / "disk.img"
        self._size = size
        self._make = make
        self._options = options or f"loop,commit={commit}"
        self.root = place / "disk"

    def make(self) -> None:
        self.root.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._size)
        subprocess.run([*self._make, self._image], check=True)
        self.attach()

    def attach(self) -> None:
        done = subprocess.run(
            ["mount", "-o", self._options, self._image, self.root], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"this machine mounts no images: {done.stderr.strip()}")

    @property
    def environment(self) -> dict[str, str]:
        return {"FSDRIVER_CACHE_DIR": f"{self.root}/cache", "FSDRIVER_STATE_DIR": f"{self.root}/state"}

    def commit_names(self) -> None:
        """What ext4 does every few seconds: names are on the disk, bytes that nobody has synced need not be."""
        with open(self.root / "other", "wb") as file:
            file.write(b"of another program")
            file.flush()
            os.fsync(file.fileno())

    def cut_power(self) -> None:
        """Nothing reaches the disk from now on; files open on it, or in a mount that stands on it, must be closed."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restart(self, tree: MountedTree) -> None:
        """End what ran, mount the disk as the cut left it, and let the journal know of another boot."""
        with contextlib.suppress(ValueError):
            kill_daemon(tree)
        tree.end()
        self.detach()
        self.attach()
        for name in ("state/catalog.db", "cache/index.db"):
            if (self.root / name).exists():
                with contextlib.closing(sqlite3.connect(self.root / name)) as database, database:
                    if database.execute("SELECT 1 FROM sqlite_master WHERE name='boot'").fetchone():
                        database.execute("UPDATE boot SET id=?", (str(uuid.uuid4()),))

    def detach(self) -> None:
        def unmounted() -> bool:
            return subprocess.run(["umount", self.root], capture_output=True, check=False).returncode == 0

        wait_for(unmounted)

    def end(self) -> None:
        subprocess.run(["umount", "--lazy", self.root], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)
        self._image.unlink(missing_ok=True)


def can_cut_power() -> bool:
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None and os.path.exists("/dev/loop-control")
