"""One storage service as a `Store`: deadlines, retries and checks here, what differs between services below.

A backend speaks *keys* of one container (a bucket, or the file system for ``file://``): it knows nothing of routes,
names, tiers or caches. Public methods carry the deadline, the retries and the checks after ambiguous failures; an
implementation supplies the underscored ones, whose errors are already those of `fsdriver.errors`, and says with
`BackendError.temporary` (or by overriding `is_temporary`) what is worth another try.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fsdriver.backends import multipart
from fsdriver.backends.calls import Calls
from fsdriver.backends.model import (
    ABSENT,
    Capabilities,
    Counters,
    ObjectInfo,
    Page,
    check_metadata,
    check_size,
)
from fsdriver.backends.multipart import Part, Unfinished
from fsdriver.backends.source import Source, md5_of, size_of
from fsdriver.backends.store import Store
from fsdriver.errors import BackendError, FsdriverError, NotFound, Stale, Unsupported

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

__all__ = ["ABSENT", "Backend", "Capabilities", "Counters", "ObjectInfo", "Page", "Part", "Source"]

DELETES_IN_FLIGHT: Final = 10
EMPTY_PAGES: Final = 1000
"""Pages without an entry, one after the other, after which a listing is given up: the service would go on for ever."""


class Backend(Calls, Store):
    """One container of one storage service; constructed as `Calls` says."""

    parts_in_flight: int = 4
    delete_batch: int = 1
    """Keys one request of `delete_many` takes."""
    repeats_requests: bool = False
    """The client may send an idempotent request twice on its own, so that it can lose a condition against itself."""
    fork_safe: bool = True
    """A forked child may go on using what the parent opened, or at least open anew."""

    # -- reading -----------------------------------------------------------------------------------------------------

    async def check(self, prefix: str = "") -> None:
        await self._call("check", prefix, lambda: self._check(prefix), reads=True)

    async def head(self, key: str) -> ObjectInfo:
        return await self._call("head", key, lambda: self._head(key), reads=True)

    async def get(self, key: str, start: int = 0, end: int | None = None, version: str | None = None) -> memoryview:
        expected = 0 if end is None else end - start
        data = await self._call(
            "get", key, lambda: self._get(key, start, end, version), size=expected, transfer=True, reads=True
        )
        self.counters.bytes_read += len(data)
        return data

    async def fetch(self, key: str, most: int) -> tuple[ObjectInfo, memoryview]:
        info, data = await self._call("get", key, lambda: self._fetch_whole(key, most), reads=True)
        self.counters.bytes_read += len(data)
        return info, data

    async def list(self, prefix: str, *, delimiter: bool = True, start_after: str = "") -> AsyncIterator[Page]:
        token: Any = None
        empty = 0
        while empty < EMPTY_PAGES:
            page, token = await self._call(
                "list", prefix, partial(self._list_page, prefix, delimiter, start_after, token), reads=True
            )
            empty += 1
            if page.objects or page.prefixes:
                empty = 0
                yield page
            if token is None:
                return
        raise BackendError(f"the service gave {EMPTY_PAGES} pages of a listing without an entry", prefix)

    async def list_some(self, prefix: str, *, start_after: str = "", limit: int) -> tuple[Page, bool]:
        return await self._call("list", prefix, lambda: self._list_some(prefix, start_after, limit), reads=True)

    # -- writing -----------------------------------------------------------------------------------------------------

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
        self._check_metadata(key, metadata)
        size = size_of(source)
        if size > self.put_limit and self.capabilities.multipart:
            info = await multipart.upload(
                self, key, source, size, metadata=metadata, if_version=if_version, content_type=content_type,
                doubtful=doubtful,
            )  # fmt: skip
        else:
            info = await self._call_write(
                "put",
                key,
                lambda: self._put(key, source, metadata, if_version, content_type),
                lambda: self._find_own(key, size, lambda: asyncio.to_thread(md5_of, source), metadata),
                size=size,
                transfer=True,
                # Only metadata (ours has inode number and time) tells our bytes from equal ones of another writer.
                unanswered=doubtful or (self.repeats_requests and bool(metadata)),
            )
        self.counters.bytes_written += size
        return info

    def stops_when_cancelled(self, size: int) -> bool:
        return size > self.put_limit and self.capabilities.multipart

    async def begin_multipart(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> str:
        """Open a multipart upload and return its handle."""
        failures: builtins.list[BackendError] = []

        async def attempt() -> str:
            try:
                return await self._begin_multipart(key, metadata, content_type)
            except BackendError as error:
                failures.append(error)
                raise

        handle = await self._call("begin_multipart", key, attempt)
        if failures:
            await multipart.abort_lost(self, key, handle)
        return handle

    async def upload_part(self, key: str, handle: str, number: int, data: bytes | memoryview) -> Part:
        """Send one part; sending a number again replaces it."""
        return await self._call(
            "upload_part", key, lambda: self._upload_part(key, handle, number, data), size=len(data), transfer=True
        )

    async def complete_multipart(
        self,
        key: str,
        handle: str,
        parts: Sequence[Part],
        size: int,
        if_version: str | None,
        metadata: Mapping[str, str] | None = None,
        doubtful: bool = False,
    ) -> ObjectInfo:
        """Make the parts the object, if ``if_version`` holds; `Stale` otherwise. ``doubtful`` as in `put`."""

        async def tag() -> str | None:
            return multipart.tag_of_parts(parts)

        return await self._call_write(
            "complete_multipart",
            key,
            lambda: self._complete_multipart(key, handle, parts, size, if_version),
            lambda: self._find_own(key, size, tag, metadata),
            unanswered=doubtful,
        )

    async def abort_multipart(self, key: str, handle: str) -> None:
        if handle.startswith(multipart.BEGINNING):
            await multipart.abort_unanswered(self, key, handle)
            return
        await self._call("abort_multipart", key, lambda: self._abort_multipart(key, handle))

    async def delete(self, key: str, *, if_version: str | None = None) -> None:

        async def gone() -> bool | None:
            try:
                await self._head(key)
            except NotFound:
                return True
            return None

        async def attempt() -> bool:
            try:
                await self._delete(key, if_version)
            except Stale:
                # Services differ in whether a missing key loses the condition.
                if await gone() is None:
                    raise
            return True

        await self._call_write("delete", key, attempt, gone)

    async def delete_many(self, keys: Sequence[str]) -> None:
        failures: builtins.list[FsdriverError] = []
        chunks = iter([keys[at : at + self.delete_batch] for at in range(0, len(keys), self.delete_batch)])

        async def worker() -> None:
            for chunk in chunks:
                try:
                    if self.delete_batch == 1:
                        await self.delete(chunk[0])
                    else:
                        await self._call("delete_many", chunk[0], partial(self._delete_batch, chunk))
                except FsdriverError as error:
                    failures.append(error)

        await asyncio.gather(*(worker() for _ in range(DELETES_IN_FLIGHT)))
        if failures:
            raise failures[0]

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
        self._check_metadata(target, metadata)
        failed = doubtful

        async def attempt() -> ObjectInfo:
            nonlocal failed
            try:
                return await self._copy(source, target, source_version, if_version, metadata, size)
            except FsdriverError as error:
                failed = failed or self.is_temporary(error)
                raise

        async def own() -> ObjectInfo | None:
            original = await self._head(source)
            carried = metadata or original.metadata
            # As of `put`: only metadata tell a copy of ours from another's.
            if (source_version not in {None, original.version}) or not (failed or carried):
                return None

            async def tag() -> str:
                return original.version

            return await self._find_own(target, original.size, tag, carried)

        doubt = doubtful or self.repeats_requests
        return await self._call_write("copy", target, attempt, own, unanswered=doubt, transfer=True)

    async def close(self) -> None:
        self.outage.close()

    # -- to be supplied ----------------------------------------------------------------------------------------------

    @abstractmethod
    async def _check(self, prefix: str) -> None: ...

    @abstractmethod
    async def _head(self, key: str) -> ObjectInfo: ...

    async def _fetch_whole(self, key: str, most: int) -> tuple[ObjectInfo, memoryview]:
        info = await self._head(key)
        check_size(info, most)
        return info, await self._get(key, 0, None, info.version if self.capabilities.strong_versions else None)

    @abstractmethod
    async def _get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview: ...

    @abstractmethod
    async def _list_page(self, prefix: str, delimiter: bool, start_after: str, token: Any) -> tuple[Page, Any]:
        """One page of at most 1,000 entries, and what `_list_page` needs for the next one (None: it was the last)."""

    async def _list_some(self, prefix: str, start_after: str, limit: int) -> tuple[Page, bool]:
        raise Unsupported(f"{self.scheme}:// lists one level at a time", prefix)

    @abstractmethod
    async def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
    ) -> ObjectInfo: ...

    @abstractmethod
    async def _delete(self, key: str, if_version: str | None) -> None: ...

    @abstractmethod
    async def _copy(
        self,
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
        size: int | None,
    ) -> ObjectInfo: ...

    async def _delete_batch(self, keys: Sequence[str]) -> None:
        raise Unsupported(f"{self.scheme}:// deletes keys one by one", keys[0])

    async def _begin_multipart(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> str:
        raise Unsupported(f"{self.scheme}:// has no multipart uploads", key)

    async def list_uploads(self, key: str) -> builtins.list[Unfinished]:
        """The uploads in parts of one key that are neither complete nor aborted."""
        raise Unsupported(f"{self.scheme}:// has no multipart uploads", key)

    async def _upload_part(self, key: str, handle: str, number: int, data: bytes | memoryview) -> Part:
        raise Unsupported(f"{self.scheme}:// has no multipart uploads", key)

    async def _complete_multipart(
        self, key: str, handle: str, parts: Sequence[Part], size: int, if_version: str | None
    ) -> ObjectInfo:
        raise Unsupported(f"{self.scheme}:// has no multipart uploads", key)

    async def _abort_multipart(self, key: str, handle: str) -> None:
        raise Unsupported(f"{self.scheme}:// has no multipart uploads", key)

    def _check_metadata(self, key: str, metadata: Mapping[str, str] | None) -> None:
        """Refuse metadata the service would mangle."""
        check_metadata(key, metadata)

    async def _find_own(
        self,
        key: str,
        size: int,
        tag: Callable[[], Awaitable[str | None]],
        metadata: Mapping[str, str] | None,
    ) -> ObjectInfo | None:
        """The object at ``key`` if size, ETag and metadata are those of the write in doubt."""
        try:
            info = await self._head(key)
        except NotFound:
            return None
        wanted = {name.lower(): value for name, value in (metadata or {}).items()}
        if info.size != size or (info.metadata is not None and dict(info.metadata) != wanted):
            return None
        return info if info.version == await tag() else None
