"""The daemon as a service: readiness towards systemd, where it logs, and the limits it runs under."""

from __future__ import annotations

import ctypes
import logging
import logging.handlers
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Final

from fsdriver.config import state_dir
from fsdriver.errors import ConfigError

log = logging.getLogger(__name__)

FORMAT: Final = "%(levelname)s %(name)s: %(message)s"
SYSLOG: Final = Path("/dev/log")
LOG_SIZE: Final = 1 << 20
PR_SET_DUMPABLE: Final = 4
"""Of linux/prctl.h."""
FEW_FILES: Final = 4096
"""Open files below which a hard limit is worth a warning."""


class OneLine(logging.Formatter):
    """A message on one line of printable characters: names of files, which anybody chooses, forge no further lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base
        text = super().formatMessage(record)
        return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def notify_service(*lines: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3)): ``READY=1``, ``STOPPING=1``, ``STATUS=…``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("the service manager at %s cannot be told: %s", address, error)


def log_to_stderr() -> None:
    """In the foreground: stderr, which a service manager sends to its journal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(FORMAT if "JOURNAL_STREAM" in os.environ else f"%(asctime)s {FORMAT}"))
    _install(handler)


def log_in_background(name: str) -> None:
    """In the background: the system's log, or ``log/<name>.log`` in the state folder where there is none."""
    handler: logging.Handler
    if SYSLOG.exists():
        handler = logging.handlers.SysLogHandler(str(SYSLOG), logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.setFormatter(OneLine(f"fsdriver[%(process)d]: {FORMAT}"))
    else:
        folder = state_dir() / "log"
        folder.mkdir(mode=0o700, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(folder / f"{name}.log", maxBytes=LOG_SIZE, backupCount=1)
        handler.setFormatter(OneLine(f"%(asctime)s %(process)d {FORMAT}"))
    _install(handler)


def _install(handler: logging.Handler) -> None:
    root = logging.getLogger("fsdriver")
    root.handlers[:] = [handler]
    root.setLevel(log_level(os.environ.get("FSDRIVER_LOG", "INFO")))
    root.propagate = False


def log_level(name: str) -> int:
    """A level of `logging` by its name, in any case; raises ConfigError."""
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise ConfigError(f"{name!r} is no level of logging; there are DEBUG, INFO, WARNING and ERROR", "FSDRIVER_LOG")
    return level


def detach_streams() -> None:
    """Let go of the caller's terminal and pipes."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)


def keep_secrets_in_memory() -> None:
    """No core file of this process, and no look into it by others of this user: it holds keys and everybody's data.

    PR_SET_DUMPABLE of prctl(2); unlike a limit it also holds for core files that the kernel pipes to a program (core(5)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl") and libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        log.warning("core files of this daemon cannot be switched off: %s", os.strerror(ctypes.get_errno()))


def raise_limits() -> None:
    """As many open files as the hard limit allows: each open inode holds one or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < FEW_FILES:
        log.warning(
            "%d open files are all that the hard limit allows this daemon; programs that open more here are told EMFILE: "
            "raise LimitNOFILE= of the service, or ulimit -Hn",
            hard,
        )
