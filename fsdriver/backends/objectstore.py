"""S3 and what speaks its protocol: obstore for bytes, the SDK for what obstore cannot, one source of credentials.

obstore (a Rust client) sends GET, HEAD, PUT and bulk deletes of plain keys; `Sdk` does the rest. obstore's threads do
not survive a fork: `threads_lost` tells, and `fsdriver.backends.open_backend` then takes the fsspec engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
from obstore.store import S3Store

from fsdriver.backends.base import ABSENT, Backend, Capabilities, ObjectInfo, Page, Part, Source
from fsdriver.backends.forks import starts_threads, threads_lost
from fsdriver.backends.model import check_size
from fsdriver.backends.s3_errors import failure_of, is_panic, to_error
from fsdriver.backends.s3_integrity import MOST, MOST_OF_ATTRIBUTES, Integrity, is_encrypted, is_md5
from fsdriver.backends.s3_now import PATIENCE, Immediate
from fsdriver.backends.s3_page import nanoseconds
from fsdriver.backends.s3_sdk import Sdk, is_plain
from fsdriver.backends.source import load, size_of
from fsdriver.errors import BackendError, ContainerMissing, Corrupt, NotFound, Stale, Throttled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from fsdriver.backends.multipart import Unfinished
    from fsdriver.backends.retry import RetryPolicy
    from fsdriver.backends.s3_settings import S3Settings

T = TypeVar("T")

BUCKET_TRUST: Final = 10.0
"""Seconds for which an answer proves that the bucket exists. A HEAD's 404 has no body to tell a missing bucket by."""
THROTTLED: Final = 10.0
"""Seconds for which the SDK makes all requests after a store has asked for fewer: it reads Retry-After."""
STANDARD_HEADERS: Final = frozenset(
    {"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Storage-Class"}
)


class ObjectStoreBackend(Backend):
    """One S3 bucket; nothing is sent before the first operation.

    Parameters
    ----------
    settings : S3Settings
    retry : RetryPolicy
    """

    capabilities = Capabilities(
        conditional_put=True, conditional_delete=True, multipart=True, server_copy=True, metadata=True, flat_list=True
    )
    delete_batch = 1000
    fork_safe = False
    reads_now = True
    immediate = True

    def __init__(self, settings: S3Settings, retry: RetryPolicy) -> None:
        super().__init__("s3", settings.location, settings.bucket, retry, slots=settings.pool_size)
        self.settings = settings
        self.capabilities = replace(type(self).capabilities, checks_uploads=settings.checksums)
        self.sdk = Sdk(settings)
        self._store = _make_store(settings)
        self._bucket_seen = -BUCKET_TRUST
        self._integrity = Integrity(self.counters, self.location)
        self._throttled_until = 0.0
        self._now = Immediate(
            settings,
            _make_store(settings, patience=PATIENCE),
            self.sdk,
            self.counters,
            self._saw_bucket,
            self._integrity,
        )

    async def _renew(self, since: float) -> bool:
        return await asyncio.to_thread(self.settings.credentials.renew, since)

    async def close(self) -> None:
        await super().close()
        self._now.close()
        self.sdk.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _check(self, prefix: str) -> None:
        await self.sdk.call("", self.sdk.lister.page, prefix, True, "", None, 1)

    async def _head(self, key: str) -> ObjectInfo:
        try:
            if not self._is_for_obstore(key):
                return await self.sdk.call(key, self.sdk.head, key)
            result = await self._send(key, obstore.get_async, self._store, key, options={"head": True})
        except NotFound:
            await self._prove_bucket(key)
            raise
        except BackendError as error:
            if failure_of(error.__cause__ or error).status == HTTPStatus.BAD_REQUEST:
                await self.sdk.call(key, self.sdk.describe, key)  # which finds out why
            raise
        return _info(key, result)

    def get_now(self, key: str, size: int, version: str) -> memoryview | None:
        return self._now.get(key, size, version) if self._can_now(key) else None

    def put_now(
        self, key: str, data: bytes, metadata: Mapping[str, str] | None, if_version: str | None
    ) -> ObjectInfo | None:
        return self._now.put(key, data, metadata, if_version) if self._can_now(key) else None

    def copy_now(
        self, size: int, source: str, target: str, source_version: str, if_version: str | None
    ) -> ObjectInfo | None:
        can = 0 < size <= self.sdk.copy_limit and is_plain(source) and self._can_now(target)
        return self._now.copy(size, source, target, source_version, if_version) if can else None

    def delete_now(self, key: str, if_version: str | None) -> bool:
        return self._can_now(key) and self._now.delete(key, if_version)

    def _is_for_obstore(self, key: str) -> bool:
        """It takes the key, and the store does not ask for patience just now: obstore does not tell for how long."""
        return is_plain(key) and time.monotonic() >= self._throttled_until

    def _can_now(self, key: str) -> bool:
        if not self._is_for_obstore(key) or threads_lost():
            return False
        starts_threads()
        return True

    def _saw_bucket(self) -> None:
        self._bucket_seen = time.monotonic()
        self.outage.answered()

    async def _fetch_whole(self, key: str, most: int) -> tuple[ObjectInfo, memoryview]:
        if not self._is_for_obstore(key):
            return await super()._fetch_whole(key, most)
        result = await self._send(key, obstore.get_async, self._store, key)
        info = _info(key, result)
        check_size(info, most)
        data = memoryview(await self._send(key, result.bytes_async))
        if len(data) != info.size:
            short = Corrupt(f"{self.location} sent {len(data)} of {info.size} bytes", key)
            short.temporary = True
            raise short
        await self._check_bytes(key, info.version, data, lambda: self._fetch_again(key), MOST_OF_ATTRIBUTES)
        return info, data

    async def _fetch_again(self, key: str) -> memoryview:
        result = await self._send(key, obstore.get_async, self._store, key)
        return memoryview(await self._send(key, result.bytes_async))

    async def _is_encrypted(self, key: str) -> bool:
        return is_encrypted(await self.sdk.call(key, self.sdk.describe, key))

    async def has_digest(self, key: str, version: str, md5: str) -> bool | None:
        if self._integrity.useless or not is_md5(version) or version == md5:
            return True if version == md5 else None
        return None if await self._is_encrypted(key) else False

    async def _check_bytes(
        self, key: str, etag: str, data: memoryview, again: Callable[[], Awaitable[memoryview]], most: int = MOST
    ) -> None:
        """Compare a whole object with its ETag; see `Integrity`."""

        async def encrypted() -> bool:
            return await self._is_encrypted(key)

        await self._integrity.check(key, etag, data, again=again, encrypted=encrypted, most=most)

    async def _get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview:
        if end is not None and end <= start:
            return memoryview(b"")
        try:
            data, size = await self._fetch(key, start, end, version)
        except BackendError as error:
            if failure_of(error.__cause__ or error).status == 416:
                return memoryview(b"")
            raise
        expected = (size if end is None else min(end, size)) - start
        if len(data) != expected:
            short = Corrupt(f"{self.location} sent {len(data)} of {expected} bytes", key)
            short.temporary = True
            raise short
        if version is not None and len(data) == size:

            async def again() -> memoryview:
                return (await self._fetch(key, start, end, version))[0]

            await self._check_bytes(key, version, data, again)
        return data

    async def _fetch(self, key: str, start: int, end: int | None, version: str | None) -> tuple[memoryview, int]:
        if not self._is_for_obstore(key):
            return await self.sdk.call(key, self.sdk.get, key, start, end, version)
        options: dict[str, Any] = {} if version is None else {"if_match": f'"{version}"'}
        if end is not None:
            options["range"] = (start, end)
        elif start:
            options["range"] = {"offset": start}
        result = await self._send(key, obstore.get_async, self._store, key, options=options)
        return memoryview(await self._send(key, result.bytes_async)), result.meta["size"]

    async def _list_page(self, prefix: str, delimiter: bool, start_after: str, token: Any) -> tuple[Page, Any]:
        return await self.sdk.call("", self.sdk.lister.page, prefix, delimiter, start_after, token)

    async def _list_some(self, prefix: str, start_after: str, limit: int) -> tuple[Page, bool]:
        page, token = await self.sdk.call("", self.sdk.lister.page, prefix, False, start_after, None, limit)
        return page, token is not None

    async def sign(self, key: str, expires: int) -> str:
        return await self.sdk.call(key, self.sdk.sign, key, expires)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
    ) -> ObjectInfo:
        with _lost_condition(if_version):
            if self._is_for_obstore(key):
                return await self._put_plain(key, source, metadata, if_version, content_type)
            return await self.sdk.call(
                key, self.sdk.put, key, source, metadata or {}, if_version, _headers(content_type)
            )

    async def _put_plain(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
    ) -> ObjectInfo:
        size = size_of(source)
        data = await load(source, 0, size)
        attributes = dict(metadata or {})
        if content_type is not None:
            attributes["Content-Type"] = content_type
        mode: Any = "overwrite"
        if if_version is not None:
            mode = "create" if if_version == ABSENT else {"e_tag": f'"{if_version}"'}
        result = await self._send(
            key,
            obstore.put_async,
            self._store,
            key,
            data,
            attributes=attributes,
            mode=mode,
            use_multipart=False,
        )
        # The answer has no Last-Modified; the store's own time comes with the next HEAD or listing.
        return ObjectInfo(key, size, time.time_ns(), _tag(result["e_tag"]), dict(metadata or {}))

    async def _delete(self, key: str, if_version: str | None) -> None:
        if if_version is None and self._is_for_obstore(key):
            await self._send(key, obstore.delete_async, self._store, key)
        else:
            await self.sdk.call(key, self.sdk.delete, key, if_version)

    async def _delete_batch(self, keys: Sequence[str]) -> None:
        plain = [key for key in keys if self._is_for_obstore(key)]
        if plain:
            await self._send(plain[0], obstore.delete_async, self._store, plain)
        odd = [key for key in keys if key not in plain]
        if odd:
            await self.sdk.call(odd[0], self.sdk.delete_batch, odd)

    async def _copy(
        self,
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
        size: int | None,
    ) -> ObjectInfo:
        if source_version is not None and metadata is None and size is not None and 0 < size <= self.sdk.copy_limit:
            try:
                return await self.sdk.call(
                    target,
                    self.sdk.copy_known,
                    size,
                    source,
                    target,
                    source_version,
                    if_version,
                    see_through=True,
                )
            except (NotFound, Stale):
                pass  # which of the two objects was meant is found out below
        try:
            original = await self.sdk.call(source, self.sdk.describe, source)
        except NotFound:
            await self._prove_bucket(source)
            raise
        with _lost_condition(if_version):
            return await self.sdk.call(
                target,
                self.sdk.copy,
                original,
                source,
                target,
                source_version,
                if_version,
                metadata,
                see_through=True,
            )

    async def _begin_multipart(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> str:
        return await self.sdk.call(key, self.sdk.begin, key, metadata or {}, _headers(content_type), see_through=True)

    async def list_uploads(self, key: str) -> list[Unfinished]:
        return await self.sdk.call(key, self.sdk.uploads, key)

    async def _upload_part(self, key: str, handle: str, number: int, data: bytes | memoryview) -> Part:
        return await self.sdk.call(key, self.sdk.upload_part, key, handle, number, data, see_through=True)

    async def _complete_multipart(
        self, key: str, handle: str, parts: Sequence[Part], size: int, if_version: str | None
    ) -> ObjectInfo:
        with _lost_condition(if_version):
            version = await self.sdk.call(key, self.sdk.complete, key, handle, parts, if_version, see_through=True)
        return ObjectInfo(key, size, time.time_ns(), version)

    async def _abort_multipart(self, key: str, handle: str) -> None:
        await self.sdk.call(key, self.sdk.abort, key, handle)

    # -- obstore -------------------------------------------------------------------------------------------------------

    async def _send(self, key: str, request: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        """Make a request through obstore and translate its failure."""
        if threads_lost():
            raise BackendError("this store was used before the process forked; open it anew in the child", key)
        starts_threads()
        try:
            result = await request(*arguments, **options)
        except Exception as error:
            failure = failure_of(error)
            if failure.code == "NoSuchKey":
                self._bucket_seen = time.monotonic()
            told = to_error(failure, key, self.container, self.location)
            if isinstance(told, Throttled):
                self._throttled_until = time.monotonic() + THROTTLED
            raise told from error
        except BaseException as error:
            if not is_panic(error):
                raise  # a cancellation is not ours to translate
            raise BackendError(f"the client failed on this request: {error}", key) from error
        self._bucket_seen = time.monotonic()
        return result

    async def _prove_bucket(self, key: str) -> None:
        """After a 404 without a body: raise `ContainerMissing` if it is the bucket that is missing."""
        if time.monotonic() - self._bucket_seen < BUCKET_TRUST:
            return
        try:
            await self.sdk.call(key, self.sdk.get, key, 0, 1, None)
        except ContainerMissing:
            raise
        except BackendError:
            return
        except NotFound:
            pass
        self._bucket_seen = time.monotonic()


def _info(key: str, result: Any) -> ObjectInfo:
    """Attributes of a GET's or HEAD's answer."""
    attributes = {name.lower(): value for name, value in result.attributes.items() if name not in STANDARD_HEADERS}
    meta = result.meta
    return ObjectInfo(key, meta["size"], nanoseconds(meta["last_modified"]), _tag(meta["e_tag"]), attributes)


@contextlib.contextmanager
def _lost_condition(if_version: str | None) -> Iterator[None]:
    """A missing key loses the condition on its version; some services answer 404 then, others 412."""
    try:
        yield
    except NotFound as error:
        if if_version is None:
            raise
        raise Stale("the object was removed by someone else meanwhile; read it again", error.filename) from error


def _tag(etag: str | None) -> str:
    return (etag or "").strip('"')


def _headers(content_type: str | None) -> dict[str, str]:
    return {} if content_type is None else {"ContentType": content_type}


def _make_store(settings: S3Settings, patience: float | None = None) -> S3Store:
    """The client; with ``patience`` one for calls that wait in a thread, which has no event loop to ask for credentials."""
    provider = settings.credentials if patience is None else settings.credentials.fetch
    config: dict[str, Any] = {
        "region": settings.region,
        "virtual_hosted_style_request": not settings.path_style,
    }
    if settings.address is not None:
        config["endpoint"] = settings.address
    if settings.credentials.anonymous:
        config["skip_signature"] = True
    if settings.checksums:
        # Not all services compare a signature with the bytes. The sum is one that the signature needs as well.
        config["checksum_algorithm"] = "sha256"
    return S3Store(
        settings.bucket,
        config=config,  # type: ignore[arg-type]
        client_options={
            "allow_http": settings.endpoint is not None and settings.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(settings.connect_timeout, patience or settings.connect_timeout)),
            "read_timeout": timedelta(seconds=min(settings.timeout, patience or settings.timeout)),
            # Large ranges may take longer: the whole request is bounded by the operation's deadline.
            "timeout": timedelta(days=1),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=settings.timeout)},
        credential_provider=None if settings.credentials.anonymous else provider,  # type: ignore[arg-type]
    )
