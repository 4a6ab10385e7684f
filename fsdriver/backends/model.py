"""What backends answer: objects, pages, capabilities, counters."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from fsdriver.errors import Corrupt, Unsupported

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

ABSENT: Final = ""
"""As ``if_version``: the key must not exist (If-None-Match: *)."""


@dataclass(slots=True, unsafe_hash=True)
class ObjectInfo:
    """What a store tells about one object. Treated as immutable; not frozen, because listings make a great many.

    Attributes
    ----------
    key : str
        Full key in the container.
    size : int
        Bytes.
    mtime_ns : int
        Last modification, nanoseconds since the epoch; the store's own resolution.
    version : str
        ETag or generation, without quotes. Backends without one build it from size, mtime and inode
        (see `Capabilities.strong_versions`).
    metadata : mapping of str to str, or None
        User metadata, keys in lower case without the store's prefix; None where the request did not return it.
    """

    key: str
    size: int
    mtime_ns: int
    version: str
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: objects, and common prefixes (each ending in ``/``) when a delimiter was asked for."""

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a service can do, asked before an operation is planned rather than found out by its failure."""

    conditional_put: bool = False
    """``if_version`` of `put` is checked and carried out by the service in one step."""
    conditional_delete: bool = False
    multipart: bool = False
    server_copy: bool = False
    metadata: bool = False
    list_metadata: bool = False
    """`list` already returns `ObjectInfo.metadata` (``file://``: one lstat gives all)."""
    flat_list: bool = False
    """`list_some` tells many levels in one request."""
    markers: bool = True
    """``dir/`` keys can be stored; else directories are real (``file://``) or only implied."""
    directories: bool = False
    """Directories are real: the first key below one makes it, and it stays when the last is gone."""
    checks_uploads: bool = False
    """The service compares what arrives with a checksum that is sent along."""
    strong_versions: bool = True
    """The version identifies the bytes; else it is size + mtime and is never trusted past its time to live."""
    read_only: bool = False
    cached: bool = True
    """What is read is kept in the disk cache; False where that would be one more copy on a disk just as near (``direct://``)."""
    segment_limit: int | None = None
    """Bytes between two ``/`` of a key (``file://``: 255); None: only the whole key has a limit."""


@dataclass(slots=True)
class Counters:
    """Requests and bytes of one backend, for ``status`` and for tests that count.

    Attributes
    ----------
    requests : dict of str to int
        Attempts sent, by operation.
    retries, errors : int
        Attempts beyond the first, and operations that failed in the end.
    bytes_read, bytes_written : int
    hidden : int
        Entries a listing left out because they lead outside the store (``file://``).
    corrupt_answers : int
        Answers whose bytes did not have the checksum that the store gave.
    buffered : int
        Files that were read or written through the page cache, because their file system refuses direct I/O (``direct://``).
    """

    requests: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    errors: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    hidden: int = 0
    corrupt_answers: int = 0
    buffered: int = 0

    def count(self, operation: str) -> None:
        """One more attempt; from any thread."""
        with _counting:
            self.requests[operation] = self.requests.get(operation, 0) + 1


_counting = threading.Lock()
os.register_at_fork(before=_counting.acquire, after_in_parent=_counting.release, after_in_child=_counting.release)


class UploadLog(Protocol):
    """Is told of uploads in parts, so that those of a process that died can be ended."""

    def begun(self, key: str, handle: str) -> None:
        """The store has opened one."""

    def ended(self, key: str, handle: str) -> None:
        """It is complete, or its parts were removed."""

    def living(self, key: str) -> Collection[str]:
        """Handles of a key that are of processes which may be alive."""


def check_metadata(key: str, metadata: Mapping[str, str] | None) -> None:
    """Refuse what does not survive an HTTP header: values are printable ASCII, names lower-case tokens."""
    for name, value in (metadata or {}).items():
        token = name.replace("-", "").replace("_", "").replace(".", "")
        if not (name.isascii() and token.isalnum() and name == name.lower()):
            raise Unsupported(f"metadata name {name!r} is no lower-case ASCII token", key)
        if not (value.isascii() and value.isprintable()):
            raise Unsupported(f"metadata value of {name!r} is not printable ASCII: percent-encode it", key)


def check_size(info: ObjectInfo, most: int) -> None:
    """Refuse an object that is to be read whole and is larger than anything of its kind."""
    if info.size > most:
        raise Corrupt(f"it has {info.size} bytes, and nothing of this kind has more than {most}", info.key)
