"""The one interface every storage service is reached through.

A backend speaks *keys* of one container (a bucket, or the file system for ``file://``): it knows nothing of routes, names,
tiers or caches. Public methods carry the deadline, the retries and the translation of errors; an implementation supplies
the underscored ones and `is_temporary`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from fsdriver.backends.retry import RetryPolicy

T = TypeVar("T")
Source: TypeAlias = bytes | memoryview | Path
"""What `Backend.put` sends: bytes in memory, or a local file that does not change while it is read."""

ABSENT: Final = ""
"""As ``if_version``: the key must not exist (If-None-Match: *)."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells about one object.

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
    conditional_delete: bool = False
    multipart: bool = False
    server_copy: bool = False
    metadata: bool = False
    list_metadata: bool = False
    """`list` already returns `ObjectInfo.metadata` (``file://``: one lstat gives all)."""
    markers: bool = True
    """``dir/`` keys can be stored; else directories are real (``file://``) or only implied."""
    strong_versions: bool = True
    """The version identifies the bytes; else it is size + mtime and is never trusted past its time to live."""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part of a multipart upload: its number (from 1) and the tag the store gave it."""

    number: int
    tag: str


@dataclass(slots=True)
class Counters:
    """Requests and bytes of one backend, for ``status`` and for tests that count."""

    requests: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    errors: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class Backend(ABC):
    """One container of one storage service.

    Parameters
    ----------
    scheme : str
        URL scheme, e.g. ``"s3"``.
    location : str
        Endpoint or account: with scheme and container the identity of the store (cache key, journal).
    container : str
        Bucket; empty where there is none.
    retry : RetryPolicy
        Attempts, back-off and deadline of one operation.

    Notes
    -----
    All methods run on the engine's event loop. Errors are those of `fsdriver.errors` only. ``if_version`` makes a request
    conditional: None is unconditional, `ABSENT` demands that the key does not exist, anything else that its version is
    that one; losing raises `Stale`. A missing *container* raises `ContainerMissing`, never `NotFound`.
    """

    capabilities: Capabilities = Capabilities()
    put_limit: int = 64 << 20
    """Largest object, in bytes, sent as one PUT; larger ones go as multipart where the backend can."""
    part_size: int = 16 << 20
    parts_in_flight: int = 4

    def __init__(self, scheme: str, location: str, container: str, retry: RetryPolicy) -> None:
        self.scheme = scheme
        self.location = location
        self.container = container
        self.retry = retry
        self.counters = Counters()

    @property
    def identity(self) -> str:
        """``scheme|location|container``: equal for two handles on one store, whatever their credentials."""
        return f"{self.scheme}|{self.location}|{self.container}"

    # -- reading -----------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Prove that the container exists and answers; raises the error that explains what is wrong."""
        await self._call("check", "", self._check)

    async def head(self, key: str) -> ObjectInfo:
        """Attributes of one object, with its user metadata.

        Raises
        ------
        NotFound
            No such key (a key that is only a prefix of others counts as missing).
        """
        return await self._call("head", key, lambda: self._head(key))

    async def get(self, key: str, start: int = 0, end: int | None = None, version: str | None = None) -> memoryview:
        """Bytes ``start`` to ``end`` (exclusive; None: to the end) of one object.

        ``version`` demands that very version: `Stale` if the object has changed. A short answer raises `Corrupt`; a
        range past the end is cut at the end.
        """
        data = await self._call("get", key, lambda: self._get(key, start, end, version))
        self.counters.bytes_read += len(data)
        return data

    def list(self, prefix: str, *, delimiter: bool = True, start_after: str = "") -> AsyncIterator[Page]:
        """Objects under ``prefix`` (a plain string prefix), in pages, in key order.

        With ``delimiter`` only one level: deeper keys fold into `Page.prefixes`. The key equal to ``prefix`` itself (a
        ``dir/`` marker) is included. One odd foreign key never breaks a listing. An empty result is an empty listing,
        never `NotFound`; a missing container raises `ContainerMissing`.
        """
        raise NotImplementedError

    # -- writing -----------------------------------------------------------------------------------------------------

    async def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        if_version: str | None = None,
        content_type: str | None = None,
    ) -> ObjectInfo:
        """Create or replace one object, all or nothing; sources over `put_limit` go as multipart uploads."""
        raise NotImplementedError

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        """Remove one object; removing what is not there is no error."""
        await self._call("delete", key, lambda: self._delete(key, if_version))

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects, as few requests as the service allows; raises the first failure after trying all."""
        raise NotImplementedError

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_version: str | None = None,
        if_version: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Copy inside the container, on the server where it can; ``metadata`` None keeps the source's."""
        raise NotImplementedError

    async def sign(self, key: str, expires: int) -> str:
        """A URL that reads ``key`` without credentials for ``expires`` seconds; `Unsupported` by default."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release connections and threads."""

    @abstractmethod
    def is_temporary(self, error: BaseException) -> bool:
        """Whether the same request may succeed if simply tried again."""

    # -- to be supplied ----------------------------------------------------------------------------------------------

    @abstractmethod
    async def _check(self) -> None: ...

    @abstractmethod
    async def _head(self, key: str) -> ObjectInfo: ...

    @abstractmethod
    async def _get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview: ...

    async def _delete(self, key: str, if_version: str | None) -> None:
        raise NotImplementedError

    async def _call(self, operation: str, key: str, attempt: Callable[[], Awaitable[T]]) -> T:
        raise NotImplementedError
