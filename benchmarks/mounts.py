"""Mounts of a bucket, one function a side: ours in its variants, and other programs (`benchmarks.peers`)."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import psutil

from benchmarks import peers
from fsdriver.fuse_mount.control import ask, socket_path
from fsdriver.testing.servers import S3Service

COMMAND_SECONDS: Final = 300.0


@dataclass(slots=True)
class Mount:
    """A mounted bucket.

    Attributes
    ----------
    side : str
    bucket : str
    directory : Path
        The mount point.
    cache : Path
        The daemon's cache directory.
    daemon : psutil.Process
    """

    side: str
    bucket: str
    directory: Path
    cache: Path
    daemon: psutil.Process
    control: Path | None = None
    """The control socket of ours."""
    _peak: float = field(default=0.0)

    @property
    def plain(self) -> bool:
        """Whether its files are ordinary objects, which can be looked at in the bucket."""
        return self.side != "juicefs"

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """A command to our daemon, without the start of a program."""
        assert self.control is not None
        return ask(self.control, str(self.directory), command, COMMAND_SECONDS, fields)

    def sync(self) -> bool:
        """Wait until everything written is in the tiers; False where the daemon cannot be asked."""
        if self.control is not None:
            self.ask("sync", path="/", timeout=COMMAND_SECONDS)
        return self.control is not None

    def fuse_requests(self) -> dict[str, int]:
        """The kernel's requests to our daemon so far."""
        return dict(self.ask("status")["requests"]) if self.control is not None else {}

    def drop_pages(self) -> None:
        """Drop the kernel's pages of all files of the cache."""
        for folder, _, names in os.walk(self.cache):
            for name in names:
                drop_pages(Path(folder) / name)

    def peak_memory(self) -> float:
        """Largest resident memory of the daemon so far, MiB (VmHWM, proc(5))."""
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._peak = int(line.split()[1]) / 1024
        return self._peak

    def cpu_seconds(self) -> float:
        """Processor time of the daemon so far."""
        times = self.daemon.cpu_times()
        return float(times.user + times.system)


Make: TypeAlias = Callable[[S3Service, str, Path, Path], AbstractContextManager[Mount]]


@contextlib.contextmanager
def _ours(
    side: str, options: Mapping[str, str], service: S3Service, bucket: str, home: Path, point: Path
) -> Iterator[Mount]:
    variables = places(home)
    environ = os.environ | service.environment() | variables
    chosen = ",".join(f"{name}={value}" for name, value in {"cache.size": "20GiB", **options}.items())
    _fsdriver(["mount", f"s3://{bucket}", str(point), "-o", chosen], environ)
    try:
        control = Path(variables["FSDRIVER_RUNTIME_DIR"]) / socket_path(str(point)).name
        yield Mount(side, bucket, point, home / "cache", daemon_of(point), control)
    finally:
        _fsdriver(["umount", str(point)], environ)


@contextlib.contextmanager
def _theirs(side: str, service: S3Service, bucket: str, home: Path, point: Path) -> Iterator[Mount]:
    peer = peers.PEERS[side]
    with peers.mounted(peer, service, bucket, home, point):
        yield Mount(side, bucket, point, home / "cache", daemon_of(home if side == "juicefs" else point))


UNPRIVILEGED: Final = {"passthrough": "off", "read_ahead": "128"}
"""What a user without privileges gets: the kernel's default of read-ahead, and no passthrough."""

SIDES: Final[Mapping[str, Make]] = {
    "fsdriver": functools.partial(_ours, "fsdriver", {}),
    "back": functools.partial(_ours, "back", {"write": "back"}),
    "through": functools.partial(_ours, "through", {"write": "through"}),
    "unprivileged": functools.partial(_ours, "unprivileged", UNPRIVILEGED),
    **{side: functools.partial(_theirs, side) for side in peers.PEERS},
}


def places(home: Path) -> dict[str, str]:
    """The variables that give a process places of its own."""
    for name in ("cache", "state", "run"):
        (home / name).mkdir(mode=0o700, exist_ok=True)
    return {
        "FSDRIVER_CACHE_DIR": str(home / "cache"),
        "FSDRIVER_STATE_DIR": str(home / "state"),
        "FSDRIVER_RUNTIME_DIR": str(home / "run"),
    }


def _fsdriver(arguments: list[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fsdriver", *arguments],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"fsdriver {' '.join(arguments)}: status {done.returncode}\n{done.stderr}{done.stdout}")


def daemon_of(place: Path) -> psutil.Process:
    """The process with a directory in its command line: the mount point, or another that it was given."""
    found = [
        one
        for one in psutil.process_iter()
        if one.pid != os.getpid() and any(str(place) in argument for argument in _command_line(one))
    ]
    if not found:
        raise RuntimeError(f"no daemon serves {place}")
    return max(found, key=lambda process: process.create_time())


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def drop_pages(path: Path) -> None:
    """Write a file's dirty pages back and drop its clean ones from the kernel's page cache (posix_fadvise(2))."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
