"""``fsdriver umount``: what is pending is uploaded within a bound, then the mount ends; nothing that is left is lost."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from fsdriver.errors import ConfigError, FsdriverError
from fsdriver.notify import socket_address

from . import device
from .control import PATIENCE, ask, serving_process, socket_path
from .draining import amount
from .mounts import FSTYPE, is_stale, mounted_at, resolve

LOOK: Final = 0.5
"""Seconds between looks at how much is left."""
TOLD: Final = 5.0
"""Seconds between lines that say so, where stderr is no terminal."""
CLOSING: Final = 30.0
"""Seconds that the daemon gets to end, beside the uploads."""
LATER: Final = "they are sent when the tree is mounted again, or by any process of this user that uses the store"


def unmount(mountpoint: str | os.PathLike[str], timeout: float | None, *, force: bool = False) -> int:
    """Upload what is pending, unmount, and wait for the daemon to end. Asks nothing of the mount itself, which may hang.

    Parameters
    ----------
    timeout : float, optional
        Seconds for the uploads; by default the ``drain_timeout`` of the mount.
    force : bool
        Detach the mount and end its connection if the daemon gives no answer.

    Returns
    -------
    int
        Exit status: 0 when the tiers have everything; 1 when something stays journaled, or the mount is busy (it then
        stays), with the reason on stderr.

    Raises
    ------
    ConfigError
        Nothing of ours is mounted there.
    """
    directory = resolve(mountpoint)
    mount = mounted_at(directory)
    if mount is None or mount.fstype != FSTYPE:
        raise ConfigError("no fsdriver tree is mounted there", directory)
    process = serving_process(directory)
    if process is None and is_stale(directory):
        device.heal(directory)
        _say(f"{directory}: the daemon was gone already; the mount is detached. What it had not uploaded is journaled "
             "and is uploaded when the tree is mounted again.")  # fmt: skip
        return 1
    path = socket_path(directory)
    try:
        status = ask(path, directory, "status", PATIENCE, {})
    except FsdriverError as error:
        if process is None:
            _say(f"{error}; it stays mounted")
        elif force:
            device.abort(mount)
            device.unmount(directory, lazy=True)
            _say(f"{directory}: its daemon (process {process}) gave no answer; the mount is detached. What was not uploaded "
                 "is journaled and is uploaded when the tree is mounted again.")  # fmt: skip
        else:
            _say(f"{directory}: its daemon (process {process}) gives no answer. --force detaches the mount; what was "
                 "acknowledged is journaled.")  # fmt: skip
        return 1
    return _end(path, directory, status["drain_timeout"] if timeout is None else timeout)


def _end(path: Path, directory: str, timeout: float) -> int:
    until = time.monotonic() + timeout
    try:
        failure = _upload(path, directory, timeout)
    except KeyboardInterrupt:
        left = ask(path, directory, "status", PATIENCE, {})
        _say(f"{directory} stays mounted; {amount(left['pending'], left['pending_bytes'])} wait in the journal and go on "
             "being uploaded")  # fmt: skip
        raise
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as watching:
        watching.settimeout(max(0.0, until - time.monotonic()) + PATIENCE + CLOSING)
        try:
            ask(path, directory, "bound", PATIENCE, {"seconds": max(0.0, until - time.monotonic())})
            with socket_address(path) as address:
                watching.connect(address)
            watching.sendall(b'{"command": "farewell"}\n')
            stream = watching.makefile("rb")
            stream.readline()
        except OSError as error:
            _say(f"{error}; {directory} stays mounted (umount {directory} leaves what is pending in the journal)")
            return 1
        try:
            device.unmount(directory)
        except OSError as error:
            busy = error.errno == errno.EBUSY
            _say(
                f"{directory}: {'busy: some process has a file or its working directory there' if busy else error.strerror}"
            )
            return 1
        return _await_farewell(stream, directory, failure)


def _upload(path: Path, directory: str, timeout: float) -> str:
    """Have the daemon upload all, and show how far it is; why it did not, or nothing."""
    failures: list[OSError] = []

    def sync() -> None:
        try:
            ask(path, directory, "sync", timeout + PATIENCE, {"path": "/", "timeout": timeout})
        except OSError as error:
            failures.append(error)

    uploading = threading.Thread(target=sync, name="fsdriver-umount", daemon=True)
    uploading.start()
    with _progress(directory) as show:
        while uploading.is_alive():
            uploading.join(LOOK)
            if uploading.is_alive():
                left = ask(path, directory, "status", PATIENCE, {})
                show(left["pending"], left["pending_bytes"])
    return str(failures[0]) if failures else ""


@contextmanager
def _progress(directory: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how many changes and bytes are left: on a terminal in one line that stays in place, else in a line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - for terminals only
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"{directory}: uploading")
            yield lambda changes, size: progress.update(
                task, description=f"{directory}: uploading, {amount(changes, size)} left"
            )
        return
    told = time.monotonic() - TOLD

    def tell(changes: int, size: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TOLD:
            told = time.monotonic()
            _say(f"{directory}: uploading, {amount(changes, size)} left")

    yield tell


def _await_farewell(stream: IO[bytes], directory: str, failure: str) -> int:
    try:
        with stream:
            last: dict[str, Any] = json.loads(stream.readline() or b"{}")
    except (OSError, ValueError) as error:
        _say(f"{directory}: unmounted, but the daemon has not said that all is uploaded: {error}")
        return 1
    if not last.get("ok"):
        _say(f"{directory}: unmounted, but the daemon ended without a word; what is pending is journaled")
        return 1
    for reason in dict.fromkeys([failure, *last.get("failures", [])]):
        if reason:
            _say(f"{directory}: {reason}")
    if last.get("pending"):
        left = amount(last["pending"], last["pending_bytes"])
        _say(f"{directory}: unmounted; {left} are journaled, but not uploaded: {LATER}")
    return 1 if last.get("pending") or last.get("failures") or failure else 0


def _say(message: str) -> None:
    sys.stderr.write(f"fsdriver: {message}\n")
