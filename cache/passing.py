"""Handing the open file of a cached object to a process of another user: the one question and its answer.

A client sends one message on a SOCK_SEQPACKET socket, the daemon sends one back and closes. The question names an object and
its version; the answer is `HERE` with a descriptor (SCM_RIGHTS), or `NOT_HERE`, whatever the reason is. No message has a
structure that nests or a length that is not bounded.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from typing import Final

from fsdriver.errors import Corrupt

from .files import LentFile, LocalFile
from .keys import ObjectKey, digest

LONGEST: Final = 16 << 10
"""Bytes of a question: the longest key of a store takes 1,024, the longest path 4,096."""
HERE: Final = b"here"
NOT_HERE: Final = b"not here"
SUFFIX: Final = ".sock"

_MAGIC: Final = b"fsdriver read 1"
_PARTS: Final = 5
_CREDENTIALS: Final = struct.Struct("iII")
"""struct ucred of unix(7): pid, uid, gid."""
_DESCRIPTOR: Final = struct.Struct("i")


def question(key: ObjectKey) -> bytes:
    """The message that asks for an object."""
    texts = (part.encode("utf-8", "surrogateescape") for part in (key.store, key.key, key.version))
    return b"\0".join((_MAGIC, *texts, str(key.size).encode()))


def parse(message: bytes) -> ObjectKey:
    """What a `question` asks for. Raises ValueError for anything else."""
    parts = message.split(b"\0")
    if len(message) > LONGEST or len(parts) != _PARTS or parts[0] != _MAGIC or not parts[4].isdigit():
        raise ValueError("not a question for a cached object")
    store, key, version = (part.decode("utf-8", "surrogateescape") for part in parts[1:4])
    return ObjectKey(store, key, version, int(parts[4]))


def socket_name(mount: str, store: str) -> str:
    """Name of the socket that a daemon listens on for one store; ``mount`` stands for its mountpoint."""
    return f"{mount}-{label(store)}{SUFFIX}"


def label(store: str) -> str:
    """What the names of the sockets for a store end in, before the suffix."""
    return digest(store)[:16]


def send(connection: socket.socket, file: LocalFile | None) -> None:
    """Answer. Raises OSError."""
    if file is None:
        connection.send(NOT_HERE)
    else:
        socket.send_fds(connection, [HERE], [file.descriptor])


def receive(connection: socket.socket, size: int) -> LentFile | None:
    """Take an answer that has arrived; None: the object is not to be had there.

    Raises
    ------
    Corrupt
        What came is no regular file of ``size`` bytes.
    OSError
    """
    # `socket.recv_fds` would leave the descriptor to programs that this process starts: it drops the flag.
    answer, control, _, _ = connection.recvmsg(
        len(NOT_HERE), socket.CMSG_LEN(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC
    )
    files = [LentFile(number) for _, _, data in control for (number,) in _DESCRIPTOR.iter_unpack(data)]
    if answer != HERE or not files:
        return None
    status = os.fstat(files[0].descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        raise Corrupt(f"the daemon handed over something else than a file of {size} bytes")
    return files[0]


def peer(connection: socket.socket) -> tuple[int, int]:
    """User and group of the process at the other end, when it connected, or began to listen."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    return uid, gid
