"""The lock of the process that uploads to a store: a flock, so that it ends with its holder."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path


class UploaderLock:
    """``uploader-<digest>.lock`` in the state directory.

    Parameters
    ----------
    state_dir : Path
    store : str
        Identity of the backend.
    """

    def __init__(self, state_dir: Path, store: str) -> None:
        self._path = state_dir / f"uploader-{hashlib.sha256(store.encode()).hexdigest()[:16]}.lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """It is of this process."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Take it, unless it is held: by another process, or by this one already."""
        if self._descriptor is not None:
            return False
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def holder(self) -> int | None:
        """PID of the other process that has it (0 where the system does not tell); None if nobody has, or this one."""
        if self._descriptor is not None or not self._path.exists():
            return None
        with open(self._path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder_of(os.fstat(file.fileno()))
        return None

    def release(self) -> None:
        """Let another process take it; in a forked child, whose descriptor is the parent's lock, it stays the parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder_of(file: os.stat_result) -> int:
    """Who holds a flock on a file: /proc/locks (proc_locks(5))."""
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == wanted:
            return max(0, int(fields[4]))
    return 0
