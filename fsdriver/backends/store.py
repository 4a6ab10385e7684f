"""What routes ask of whatever keeps their objects: one storage service (`fsdriver.backends.base.Backend`), or a stack of several.

A store speaks *keys*: it knows nothing of routes, names or caches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fsdriver.backends.model import Capabilities
from fsdriver.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from fsdriver.backends.model import Counters, ObjectInfo, Page, UploadLog
    from fsdriver.backends.outage import Outage
    from fsdriver.backends.retry import RetryPolicy
    from fsdriver.backends.source import Source


class Store(ABC):
    """Objects by key.

    Notes
    -----
    All methods run on the engine's event loop. Errors are those of `fsdriver.errors` only. ``if_version`` makes a
    request conditional: None is unconditional, `ABSENT` demands that the key does not exist, anything else that its
    version is that one; losing raises `Stale`. A missing *container* raises `ContainerMissing`, never `NotFound`.
    """

    scheme: str
    counters: Counters
    outage: Outage
    retry: RetryPolicy
    """Of one service; a stack has none."""
    capabilities: Capabilities = Capabilities()
    put_limit: int = 64 << 20
    """Largest object, in bytes, sent as one PUT; larger ones go as multipart where the backend can."""
    part_size: int = 16 << 20
    uploads: UploadLog | None = None
    """Is told of uploads in parts."""
    reads_now: bool = False
    """`get_now` works."""
    immediate: bool = False
    """There are `get_now`, `put_now`, `copy_now` and `delete_now`."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Equal for two handles on one store, whatever their credentials: the cache and the journal name it so."""

    # -- reading -----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def check(self, prefix: str = "") -> None:
        """Prove that the container exists and answers for keys under ``prefix``; raises what explains the failure."""

    async def _check(self, prefix: str) -> None:
        """As `check`, in one attempt where there is a difference: for probes."""
        await self.check(prefix)

    @abstractmethod
    async def head(self, key: str) -> ObjectInfo:
        """Attributes of one object, with its user metadata.

        Raises
        ------
        NotFound
            No such key (a key that is only a prefix of others counts as missing).
        """

    @abstractmethod
    async def get(self, key: str, start: int = 0, end: int | None = None, version: str | None = None) -> memoryview:
        """Bytes ``start`` to ``end`` (exclusive; None: to the end) of one object.

        ``version`` demands that very version: `Stale` if the object has changed. A short answer raises `Corrupt`; a
        range past the end is cut at the end.
        """

    def get_now(self, key: str, size: int, version: str) -> memoryview | None:
        """A small object whole, in the calling thread and without the event loop: one attempt, soon given up.

        Only where `reads_now` says so. None: it failed, or is another version; `get` will say why.
        """
        return None

    def used(self, key: str) -> None:  # noqa: B027 - most stores do not count
        """A file was opened; from any thread."""

    @abstractmethod
    async def fetch(self, key: str, most: int) -> tuple[ObjectInfo, memoryview]:
        """A small object whole, with the attributes of the version that was read: one request where the service allows.

        Raises
        ------
        Corrupt
            It has more than ``most`` bytes, and was not read.
        """

    @abstractmethod
    def list(self, prefix: str, *, delimiter: bool = True, start_after: str = "") -> AsyncIterator[Page]:
        """Objects under ``prefix`` (a plain string prefix), in pages.

        The order is that of the store: key order on S3 and ``file://``, but some servers that speak S3 walk a flat
        listing directory by directory. One level is always in key order.

        With ``delimiter`` only one level: deeper keys fold into `Page.prefixes`. The key equal to ``prefix`` itself (a
        ``dir/`` marker) is included. One odd foreign key never breaks a listing. An empty result is an empty listing,
        never `NotFound`; a missing container raises `ContainerMissing`. Each page is tried again on its own.
        """

    async def list_some(self, prefix: str, *, start_after: str = "", limit: int) -> tuple[Page, bool]:
        """The next ``limit`` (up to 1,000) objects under a prefix, whatever their depth, and whether others follow.

        Keys that share a prefix up to some ``/`` follow one another. Only where `Capabilities.flat_list` says so.
        """
        raise Unsupported(f"{self.identity} lists one level at a time", prefix)

    # -- writing -----------------------------------------------------------------------------------------------------

    def put_now(
        self, key: str, data: bytes, metadata: Mapping[str, str] | None, if_version: str | None
    ) -> ObjectInfo | None:
        """A small `put` as `get_now` is a `get`. None: it failed, or nobody knows; `put` has to be told (``doubtful``)."""
        return None

    def copy_now(
        self, size: int, source: str, target: str, source_version: str, if_version: str | None
    ) -> ObjectInfo | None:
        """A `copy` with the metadata of the source as `put_now` is a `put`."""
        return None

    def delete_now(self, key: str, if_version: str | None) -> bool:
        """A `delete` in the calling thread; False: it failed, or nobody knows."""
        return False

    @abstractmethod
    async def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        if_version: str | None = None,
        content_type: str | None = None,
        doubtful: bool = False,
    ) -> ObjectInfo:
        """Create or replace one object, all or nothing; sources over `put_limit` go as multipart uploads.

        ``doubtful``: it was tried before, and may have been carried out.

        Raises
        ------
        Stale
            ``if_version`` lost. If an attempt before had failed without an answer, the object there was compared with
            ``source`` first: finding our own bytes is success.
        """

    @abstractmethod
    def stops_when_cancelled(self, size: int) -> bool:
        """Whether a `put` of ``size`` bytes that is cancelled stores nothing any more once `CancelledError` is raised."""

    @abstractmethod
    async def abort_multipart(self, key: str, handle: str) -> None:
        """Remove the parts of an upload that `uploads` was told of."""

    @abstractmethod
    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        """Remove one object; removing what is not there is no error."""

    @abstractmethod
    async def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects, as few requests as the service allows; raises the first failure after trying all."""

    @abstractmethod
    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_version: str | None = None,
        if_version: str | None = None,
        metadata: Mapping[str, str] | None = None,
        size: int | None = None,
        doubtful: bool = False,
    ) -> ObjectInfo:
        """Copy inside the store, on the server where it can; ``metadata`` None keeps the source's.

        ``size`` of ``source_version``, where it is known, saves some services a request; `ObjectInfo.metadata` may then be
        missing. ``doubtful``: it was tried before, and may have been carried out.

        Raises
        ------
        NotFound
            No such source.
        Stale
            The source is not ``source_version``, or the target not ``if_version``.
        """

    async def sign(self, key: str, expires: int) -> str:
        """A URL that reads ``key`` without credentials for ``expires`` seconds; `Unsupported` where there is none."""
        raise Unsupported(f"{self.scheme}:// has no signed URLs", key)

    async def has_digest(self, key: str, version: str, md5: str) -> bool | None:
        """Whether a version of an object has this MD5 (hexadecimal); None where the store does not tell."""
        return None

    async def is_made_of(self, info: ObjectInfo, path: Path) -> bool | None:
        """Whether an object is what `put` makes of a file; None: its ETag tells, as that of any object does."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Release connections and threads."""
