"""The mount as a process: in the foreground, or in the background with the caller waiting until the tree is usable."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from fsdriver import errors
from fsdriver.errors import FsdriverError

from .control import serving_process, socket_path
from .device import heal
from .memory import keep_freed_memory, settle_collector
from .mounts import check_mountpoint, resolve
from .service import detach_streams, keep_secrets_in_memory, log_in_background, log_to_stderr, raise_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdriver.config import Config

    from .options import MountOptions

log = logging.getLogger(__name__)

SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a busy thread lets the reader thread have the interpreter (Python's default is ten times that)."""


def serve(config: Config, mountpoint: str | os.PathLike[str], *, options: MountOptions, foreground: bool) -> int:
    """Mount a tree.

    Parameters
    ----------
    config : Config
    mountpoint : path
    options : MountOptions
    foreground : bool
        Serve in this process and return when the mount has ended; else fork, and return when the tree is usable.

    Returns
    -------
    int
        Exit status: 0 when mounted, or (foreground) when the tiers had everything at the end.

    Raises
    ------
    FsdriverError
        Why it could not be mounted.
    """
    directory = resolve(mountpoint)
    if serving_process(directory) is None:
        heal(directory)
    check_mountpoint(directory)
    if foreground:
        os.umask(0o077)
        log_to_stderr()
        return _end_now(_run(config, directory, options, lambda: None))
    return _in_background(config, directory, options)


def _run(config: Config, directory: str, options: MountOptions, tell: Callable[[], None]) -> int:
    from .server import MountServer  # noqa: PLC0415 - it starts threads, which must not be before the fork

    keep_secrets_in_memory()
    raise_limits()
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = MountServer(config, directory, options)
    server.start()
    settle_collector()
    try:
        tell()
    except BrokenPipeError:
        log.warning("%s: who asked for this mount has not waited for it; it ends", directory)
        server.request_stop()
    return server.serve()


def _end_now(status: int) -> int:
    """End the process if threads still wait for a store: the interpreter would wait for them, past every bound."""
    if any(not thread.daemon and thread is not threading.current_thread() for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _in_background(config: Config, directory: str, options: MountOptions) -> int:
    name = socket_path(directory).stem
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_background(name, config, directory, options, writing))
    os.close(writing)
    with open(reading, "rb") as pipe:
        try:
            # One line, not the end of the pipe: what the daemon starts may hold its end open.
            told = pipe.readline()
        except BaseException:  # interrupted: nobody waits for the tree any more
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
    if told == b"{}\n":
        return 0
    os.waitpid(child, 0)
    if not told:
        raise FsdriverError(
            "the daemon died before the tree was usable; see its log, or mount with --foreground", directory
        )
    failure = json.loads(told)
    kind = getattr(errors, failure["kind"], FsdriverError)
    raise kind(failure["message"], failure["path"])


def _background(name: str, config: Config, directory: str, options: MountOptions, ready: int) -> int:
    """The daemon's side of the fork; the caller learns through the pipe that it is usable, or why not. It logs as ``name``."""
    with open(ready, "wb", buffering=0) as pipe:

        def tell() -> None:
            pipe.write(b"{}\n")
            pipe.close()

        try:
            os.setsid()
            os.chdir("/")
            os.umask(0o077)
            log_in_background(name)
            detach_streams()
            return _run(config, directory, options, tell)
        except Exception as error:
            # What is ours says all; the traceback of what is not may show what a service sent.
            log.error("%s: the mount failed: %s", directory, error, exc_info=not isinstance(error, FsdriverError))  # noqa: TRY400
            if not pipe.closed:
                pipe.write(json.dumps(_described(error, directory)).encode() + b"\n")
            return 1


def _described(error: Exception, directory: str) -> dict[str, str]:
    if isinstance(error, FsdriverError):
        return {"kind": type(error).__name__, "message": error.message, "path": error.filename or directory}
    return {"kind": "", "message": f"{type(error).__name__}: {error}", "path": directory}
