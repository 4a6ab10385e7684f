"""Passthrough: the kernel reads and writes a local file itself, named by a backing id.

Needs CAP_SYS_ADMIN and a kernel that grants FUSE_PASSTHROUGH; whether it really works here is found out by a self-test through
the mount, never by a version number.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from .protocol import BACKING_CLOSE, BACKING_MAP, BACKING_OPEN, Opcode

log = logging.getLogger(__name__)

MAX_STACK_DEPTH = 2
"""What INIT asks for: 1 would refuse a cache on overlayfs, which is what every container has."""


@dataclass(slots=True)
class Passthrough:
    """Backing ids of one connection.

    Attributes
    ----------
    device : int
        Descriptor of /dev/fuse.
    enabled : bool
        Open files may use it.
    excluded : bool
        They never will.
    reason : str
        Why it is off, for ``status``; empty while it is on.
    in_use : int
        Backing ids registered now.
    refused : int
        Files the kernel would not take; they are served by the daemon.
    """

    device: int = -1
    enabled: bool = False
    excluded: bool = False
    reason: str = "not tried"
    in_use: int = 0
    refused: int = 0
    _complained: bool = field(default=False, repr=False)

    def disable(self, reason: str) -> None:
        """Turn it off for the life of the mount."""
        self.enabled, self.excluded, self.reason = False, True, reason
        log.info("passthrough is off: %s", reason)

    def register(self, descriptor: int) -> int:
        """Backing id of an open local file.

        Raises
        ------
        OSError
            EPERM without CAP_SYS_ADMIN, ELOOP on too deeply stacked file systems.
        """
        request = bytearray(BACKING_MAP.pack(descriptor, 0, 0))
        backing_id: int = fcntl.ioctl(self.device, BACKING_OPEN, request, True)
        self.in_use += 1
        return backing_id

    def try_register(self, descriptor: int) -> int | None:
        """As `register`, with None (logged once, counted) for a file the kernel refuses."""
        try:
            return self.register(descriptor)
        except OSError as error:
            self.refused += 1
            if not self._complained:
                self._complained = True
                log.warning("the kernel refused passthrough of a file, the daemon serves it: %s", error)
            return None

    def release(self, backing_id: int) -> None:
        """Give an id back; files that are open keep working."""
        self.in_use -= 1
        fcntl.ioctl(self.device, BACKING_CLOSE, backing_id.to_bytes(4, "little"))


def refusal(error: OSError) -> str:
    """Why the kernel does not take a local file."""
    if error.errno == errno.EPERM:
        return "the kernel refuses it to this process (it takes CAP_SYS_ADMIN)"
    if error.errno == errno.ELOOP:
        return (
            f"the cache lies on more than {MAX_STACK_DEPTH - 1} stacked file system (overlayfs on overlayfs); "
            "give [cache] dir another place, e.g. a volume"
        )
    return f"the kernel refuses a file of the cache: {error.strerror}"


def self_test(path: str, size: int, served: Callable[[Opcode], int]) -> str:
    """Open, read, write, map and truncate a probe file through the mount.

    Parameters
    ----------
    path : str
        The probe, opened with passthrough whatever `Passthrough.enabled` says; it holds ``size`` bytes ``P``.
    served : callable
        How many requests of an opcode the daemon has answered: READ and WRITE must not move.

    Returns
    -------
    str
        Why passthrough does not work here; empty if it does.
    """
    before = served(Opcode.READ) + served(Opcode.WRITE)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        return f"opening the probe failed: {error.strerror}"
    try:
        if os.pread(descriptor, size, 0) != b"P" * size:
            return "the probe reads wrong"
        if os.pwrite(descriptor, b"Q", 1) != 1 or os.pread(descriptor, 3, 0) != b"PQP":
            return "the probe does not keep what is written"
        if served(Opcode.READ) + served(Opcode.WRITE) != before:
            return "the kernel accepts backing files but sends reads and writes to the daemon"
        # Faults hold the interpreter: they must not need this process, which is proved by now.
        with mmap.mmap(descriptor, size) as mapping:
            mapping[2] = ord("R")
            mapping.flush()
            if os.pread(descriptor, 4, 0) != b"PQRP":
                return "shared mappings of the probe do not show in reads"
        os.ftruncate(descriptor, 2)
        if os.fstat(descriptor).st_size != 2 or os.pread(descriptor, size, 0) != b"PQ":
            return "truncating the probe does not work"
    except OSError as error:
        return f"the probe failed: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""
