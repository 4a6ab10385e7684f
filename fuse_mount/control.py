"""The control socket of a daemon: JSON lines over a unix socket that only its own user and root may use.

A request is one line, ``{"command": …, …}``, the answer another: ``{"ok": true, …}`` or ``{"error": …, "errno": …}``. Commands:
``status``; ``refresh``, ``warm``, ``evict`` and ``sync`` with ``path`` (inside the tree) and for ``sync`` ``timeout`` in
seconds; ``verify`` with ``path``, ``bytes`` and ``repair``;
``bound`` with the ``seconds`` that uploads have when the mount ends; ``pin`` and ``unpin`` with ``paths``;
``invalidate`` with ``store`` and ``keys``; ``stop``; ``farewell``, which is answered at once and again when the daemon ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from fsdriver.config import runtime_dir
from fsdriver.errors import FsdriverError
from fsdriver.notify import socket_address
from fsdriver.runtime import on_loop

from .mounts import is_stale, mounted_at, resolve

log = logging.getLogger(__name__)

Answer: TypeAlias = Mapping[str, Any]
Command: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Answer]]
LONGEST_LINE: Final = 64 << 20
PATIENCE: Final = 10.0
"""Seconds within which a daemon answers that is not hung."""
STALE_PATIENCE: Final = 2.0
"""Seconds within which the kernel answers for a mount whose daemon is gone."""
BACKLOG: Final = 128
SPARE: Final = 4
"""Descriptors kept for connections, for when the process may open no more."""
ACCEPT_PAUSE: Final = 0.1
"""Seconds until a connection is tried to be taken again that found no descriptor."""
_CREDENTIALS: Final = struct.Struct("iII")  # pid uid gid: struct ucred


def socket_path(mountpoint: str) -> Path:
    """The control socket of the daemon that serves a mountpoint (an absolute path)."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return runtime_dir() / f"mount-{digest}.sock"


class ControlServer:
    """Answers on the control socket; runs on the event loop.

    Parameters
    ----------
    path : Path
    commands : mapping
        Coroutine functions by name; each takes the request.
    """

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self.path = path
        self._commands = commands
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._spare: list[int] = []
        self._inode = 0
        self._farewell: asyncio.Event | None = None
        self._last: Answer = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen; what a dead daemon left of the socket is replaced."""
        await on_loop()
        self._farewell = asyncio.Event()
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with socket_address(self.path) as address:
            listener.bind(address)
        self.path.chmod(0o600)
        self._inode = self.path.stat().st_ino
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._keep_spare()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    async def stop(self, last: Answer) -> None:
        """Answer those who wait for the end with ``last``, and listen no more."""
        await on_loop()
        if self._listener is None or self._accepting is None or self._farewell is None:
            return
        self._last = last
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        while self._spare:
            os.close(self._spare.pop())
        try:
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        except FileNotFoundError:
            log.debug("%s is gone already", self.path)
        self._farewell.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    async def _accept(self, listener: socket.socket) -> None:
        """Take connections, also when programs have all descriptors: some are kept for that."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE} and self._spare:
                    os.close(self._spare.pop())
                    continue
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    log.warning("a connection to %s was not accepted: %s", self.path, error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            reader = asyncio.StreamReader(LONGEST_LINE)
            protocol = asyncio.StreamReaderProtocol(reader, self._serve)
            try:
                await loop.connect_accepted_socket(lambda protocol=protocol: protocol, connection)  # type: ignore[misc]
            except OSError as error:
                connection.close()
                log.warning("a connection to %s was lost at once: %s", self.path, error)

    def _keep_spare(self) -> None:
        with contextlib.suppress(OSError):  # none is left: the next connection that ends leaves one
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            _check_peer(writer)
            while line := await reader.readline():
                async for answer in self._answers(line):
                    writer.write(json.dumps(answer, default=str).encode() + b"\n")
                    await writer.drain()
        except (ConnectionError, PermissionError, ValueError) as error:
            log.warning("a control connection ended: %s", error)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._keep_spare()

    async def _answers(self, line: bytes) -> AsyncIterator[Answer]:
        answer = await self._answer(line)
        yield answer
        if answer.get("waiting") and self._farewell is not None:
            await self._farewell.wait()
            yield {"ok": True, **self._last}

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            name = request["command"]
            if name == "farewell":
                return {"ok": True, "waiting": True}
            command = self._commands.get(name)
            if command is None:
                return {
                    "error": f"unknown command {name!r}; known are {', '.join(sorted(self._commands))}",
                    "errno": errno.EINVAL,
                }
            return {"ok": True, **await command(request)}
        except OSError as error:
            return {"error": str(error), "errno": error.errno or errno.EIO}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {"error": f"not a request: {error!r}", "errno": errno.EINVAL}


def _check_peer(writer: asyncio.StreamWriter) -> None:
    """Only the daemon's user and root. Raises PermissionError."""
    peer = writer.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid not in {0, os.getuid()}:
        raise PermissionError(errno.EACCES, f"a process of uid {uid} may not command this daemon")


# -- clients ---------------------------------------------------------------------------------------------------------


def request(
    mountpoint: str | os.PathLike[str], command: str, *, wait: float | None = None, **fields: Any
) -> dict[str, Any]:
    """Ask the daemon of a mountpoint.

    Parameters
    ----------
    wait : float, optional
        Longest wait for the answer, in seconds.

    Raises
    ------
    FsdriverError
        What the daemon answered, or that none answers there.
    """
    directory = resolve(mountpoint)
    return ask(socket_path(directory), directory, command, wait, fields)


def ask(path: Path, directory: str, command: str, wait: float | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """As `request`, on a given socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(wait)
        try:
            with socket_address(path) as address:
                connection.connect(address)
            connection.sendall(json.dumps({"command": command, **fields}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError as error:
            raise FsdriverError(f"the daemon gave no answer to {command} within {wait:g} s", directory) from error
        except (FileNotFoundError, ConnectionError) as error:
            raise FsdriverError(_why_nobody_answers(path, directory), directory) from error
    if not line:
        raise FsdriverError(f"the daemon ended before it answered {command}", directory)
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        failure = FsdriverError(answer["error"], directory)
        failure.errno = answer.get("errno", errno.EIO)
        raise failure
    answer.pop("ok", None)
    return answer


def _why_nobody_answers(path: Path, directory: str) -> str:
    mount = mounted_at(directory)
    if mount is not None and mount.owner not in {None, os.geteuid()}:
        return f"it was mounted by the user with the id {mount.owner}, whose daemon answers no other"
    if _is_stale_for_certain(directory):
        return (
            "its daemon is gone; mount it again at the same place, which goes on with what was pending, or detach it: "
            f"fsdriver umount {directory}"
        )
    return (
        f"no daemon answers at {path}: it was mounted with another FSDRIVER_RUNTIME_DIR, or that was deleted since; "
        f"umount {directory} ends it and uploads what is pending"
    )


def _is_stale_for_certain(directory: str) -> bool:
    """`is_stale`, asked by a thread of its own: the daemon may hang."""
    found: list[bool] = []
    asking = threading.Thread(target=lambda: found.append(is_stale(directory)), daemon=True)
    asking.start()
    asking.join(STALE_PATIENCE)
    return found == [True]


def serving_process(directory: str) -> int | None:
    """PID of the daemon that serves a mountpoint, whether or not it answers; None if there is none of this user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            with socket_address(socket_path(directory)) as address:
                connection.connect(address)
        except OSError:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(credentials)[0])
