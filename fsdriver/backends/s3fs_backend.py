"""S3 through s3fs: the engine of forked children, and of ``engine = "fsspec"``.

s3fs supplies the session, the credentials and the event loop; requests go through its asynchronous SDK client with the
same arguments as those of `fsdriver.backends.s3_sdk`, so that conditions, metadata, markers and any key work as they do
there. It takes two to three times the processor time of obstore, and survives a fork. Small objects are fetched in the thread
that waits for them, without s3fs (`fsdriver.backends.s3_now`), and the plain SDK asks for names: a worker that reads small
files does without the asynchronous client, which costs as much as a hundred of them to make.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from fsdriver.backends.base import Backend, Capabilities, ObjectInfo, Page, Part, Source
from fsdriver.backends.s3_errors import failure_of, to_error
from fsdriver.backends.s3_integrity import Integrity, is_encrypted
from fsdriver.backends.s3_list import PAGE_SIZE
from fsdriver.backends.s3_now import Immediate
from fsdriver.backends.s3_page import nanoseconds
from fsdriver.backends.s3_sdk import KEPT_HEADERS, Sdk, algorithm, checksum, conditions, described, is_plain
from fsdriver.backends.source import load, size_of
from fsdriver.errors import BackendError, ContainerMissing, Corrupt, FsdriverError, NotFound, Stale, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fsdriver.backends.multipart import Unfinished
    from fsdriver.backends.retry import RetryPolicy
    from fsdriver.backends.s3_settings import S3Settings

T = TypeVar("T")

BUCKET_TRUST: Final = 10.0
"""Seconds for which an answer proves that the bucket exists; see `fsdriver.backends.objectstore`."""


class S3fsBackend(Backend):
    """One S3 bucket through s3fs.

    Parameters
    ----------
    settings : S3Settings
    retry : RetryPolicy
    options : mapping
        Further arguments of `s3fs.S3FileSystem`.
    """

    capabilities = Capabilities(
        conditional_put=True, conditional_delete=True, multipart=True, server_copy=True, metadata=True
    )
    delete_batch = 1000
    repeats_requests = True  # aiohttp, after a connection that was closed without an answer
    copy_limit = 5 << 30

    def __init__(self, settings: S3Settings, retry: RetryPolicy, options: Mapping[str, Any]) -> None:
        super().__init__("s3", settings.location, settings.bucket, retry, slots=settings.pool_size)
        self._settings = settings
        self._settings = settings
        self._bucket = settings.bucket
        self._client: Any = None
        self._fs = _make_filesystem(settings, options)
        self._bucket_seen = -BUCKET_TRUST
        self._sdk = Sdk(settings)
        self._integrity = Integrity(self.counters, self.location)
        self._now = Immediate(settings, None, self._sdk, self.counters, self._saw_bucket, self._integrity)
        # What s3fs was told beside, requests without it do not know.
        self.reads_now = not options

    def get_now(self, key: str, size: int, version: str) -> memoryview | None:
        return self._now.get(key, size, version) if self.reads_now and is_plain(key) else None

    def _saw_bucket(self) -> None:
        self._bucket_seen = time.monotonic()
        self.outage.answered()

    async def _renew(self, since: float) -> bool:
        return await asyncio.to_thread(self._settings.credentials.renew, since)

    async def close(self) -> None:
        await super().close()
        self._now.close()
        self._sdk.close()
        if self._client is not None:
            await self._client.close()

    async def _send(self, key: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one request of the SDK on the bucket and translate its failure."""
        try:
            self._client = await self._fs.set_session()
            answer: dict[str, Any] = await getattr(self._client, operation)(Bucket=self._bucket, **arguments)
        except FsdriverError:
            raise  # of the credentials
        except (ClientError, BotoCoreError, OSError) as error:
            if operation == "head_object" and failure_of(error).status == HTTPStatus.BAD_REQUEST:
                await self._sdk.call(key, self._sdk.describe, key)  # which finds out why
            raise self._translated(error, key) from error
        self._bucket_seen = time.monotonic()
        return answer

    async def _through_sdk(self, key: str, function: Callable[..., T], *arguments: Any) -> T:
        """A request that the plain SDK makes in a thread, at a fraction of the cost, if s3fs was told nothing beside."""
        answer = await self._sdk.call(key, function, *arguments)
        self._bucket_seen = time.monotonic()
        return answer

    def _translated(self, error: BaseException, key: str) -> FsdriverError:
        failure = failure_of(error)
        if failure.code == "NoSuchKey":
            self._bucket_seen = time.monotonic()
        return to_error(failure, key, self.container, self.location)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _check(self, prefix: str) -> None:
        if self.reads_now:
            await self._through_sdk("", self._sdk.lister.page, prefix, True, "", None, 1)
            return
        await self._send("", "list_objects_v2", Prefix=prefix, MaxKeys=1)

    async def _head(self, key: str) -> ObjectInfo:
        try:
            if self.reads_now:
                return await self._through_sdk(key, self._sdk.head, key)
            answer = await self._send(key, "head_object", Key=key)
        except NotFound:
            await self._prove_bucket(key)
            raise
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return ObjectInfo(
            key, answer["ContentLength"], nanoseconds(answer["LastModified"]), answer["ETag"].strip('"'), metadata
        )

    async def _prove_bucket(self, key: str) -> None:
        """Raise `ContainerMissing` if it is the bucket that is missing: a HEAD's 404 has no body to tell."""
        if time.monotonic() - self._bucket_seen < BUCKET_TRUST:
            return
        try:
            await self._get(key, 0, 1, None)
        except ContainerMissing:
            raise
        except (BackendError, NotFound):
            return

    async def _get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview:
        if end is not None and end <= start:
            return memoryview(b"")
        arguments = conditions(version)
        if start or end is not None:
            arguments["Range"] = f"bytes={start}-" + ("" if end is None else str(end - 1))
        try:
            answer = await self._send(key, "get_object", Key=key, **arguments)
        except BackendError as error:
            if failure_of(error.__cause__ or error).status == 416:
                return memoryview(b"")
            raise
        try:
            async with answer["Body"] as stream:
                data = await stream.read()
        except Exception as error:
            # The SDK lets the errors of its transport through here, which have no common base.
            raise self._translated(error, key) from error
        if len(data) != answer["ContentLength"]:
            short = Corrupt(f"{self.location} sent {len(data)} of {answer['ContentLength']} bytes", key)
            short.temporary = True
            raise short
        whole = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(data)
        if version is not None and len(data) == whole:

            async def again() -> memoryview:
                other = await self._send(key, "get_object", Key=key, **arguments)
                async with other["Body"] as stream:
                    return memoryview(await stream.read())

            async def encrypted() -> bool:
                return is_encrypted(await self._send(key, "head_object", Key=key))

            await self._integrity.check(key, version, memoryview(data), again=again, encrypted=encrypted)
        return memoryview(data)

    async def _list_page(self, prefix: str, delimiter: bool, start_after: str, token: Any) -> tuple[Page, Any]:
        if self.reads_now:
            return await self._through_sdk("", self._sdk.lister.page, prefix, delimiter, start_after, token)
        arguments: dict[str, Any] = {"Delimiter": "/"} if delimiter else {}
        if token is not None:
            arguments["ContinuationToken"] = token
        elif start_after:
            arguments["StartAfter"] = start_after
        answer = await self._send("", "list_objects_v2", Prefix=prefix, MaxKeys=PAGE_SIZE, **arguments)
        objects = [
            ObjectInfo(one["Key"], one["Size"], nanoseconds(one["LastModified"]), one["ETag"].strip('"'))
            for one in answer.get("Contents", ())
        ]
        prefixes = [one["Prefix"] for one in answer.get("CommonPrefixes", ())]
        return Page(objects, prefixes), answer.get("NextContinuationToken") if answer.get("IsTruncated") else None

    async def sign(self, key: str, expires: int) -> str:
        self._client = await self._fs.set_session()
        url: str = await self._client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=expires
        )
        return url

    # -- writing -----------------------------------------------------------------------------------------------------

    def stops_when_cancelled(self, size: int) -> bool:
        return False  # a request of its client may still arrive after it was cancelled

    async def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
    ) -> ObjectInfo:
        size = size_of(source)
        data = bytes(await load(source, 0, size))
        answer = await self._write(
            key,
            "put_object",
            if_version,
            Body=data,
            Metadata=dict(metadata or {}),
            **checksum(self._settings, data),
            **_headers(content_type),
        )
        return ObjectInfo(key, size, time.time_ns(), answer["ETag"].strip('"'), dict(metadata or {}))

    async def _write(self, key: str, operation: str, if_version: str | None, **arguments: Any) -> dict[str, Any]:
        try:
            return await self._send(key, operation, Key=key, **arguments, **conditions(if_version))
        except NotFound as error:
            if if_version is None:
                raise
            raise Stale("the object was removed by someone else meanwhile; read it again", key) from error

    async def _delete(self, key: str, if_version: str | None) -> None:
        try:
            await self._send(key, "delete_object", Key=key, **conditions(if_version))
        except NotFound:
            return

    async def _delete_batch(self, keys: Sequence[str]) -> None:
        answer = await self._send(
            keys[0], "delete_objects", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        for failed in answer.get("Errors", ()):
            raise BackendError(f"not deleted: {failed.get('Code')} ({failed.get('Message')})", failed.get("Key"))

    async def _copy(
        self,
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
        size: int | None,
    ) -> ObjectInfo:
        try:
            original = await self._send(source, "head_object", Key=source)
        except NotFound:
            await self._prove_bucket(source)
            raise
        etag, size = original["ETag"].strip('"'), original["ContentLength"]
        if source_version is not None and etag != source_version:
            raise Stale("the source of the copy was changed by someone else meanwhile; read it again", source)
        if size > self.copy_limit:
            raise Unsupported('the fsspec engine copies up to 5 GiB; use engine = "auto"', target)
        kept = original["Metadata"] if metadata is None else dict(metadata)
        headers = {name: original[name] for name in KEPT_HEADERS if original.get(name)}
        if size == 0:
            answer = await self._write(target, "put_object", if_version, Body=b"", Metadata=kept, **headers)
            return ObjectInfo(target, 0, time.time_ns(), answer["ETag"].strip('"'), kept)
        directive = {} if metadata is None else {"MetadataDirective": "REPLACE", "Metadata": kept, **headers}
        answer = await self._write(
            target,
            "copy_object",
            if_version,
            CopySource={"Bucket": self._bucket, "Key": source},
            CopySourceIfMatch=original["ETag"],
            **directive,
        )
        return ObjectInfo(target, size, time.time_ns(), answer["CopyObjectResult"]["ETag"].strip('"'), kept)

    async def _begin_multipart(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> str:
        answer = await self._send(
            key,
            "create_multipart_upload",
            Key=key,
            Metadata=dict(metadata or {}),
            **algorithm(self._settings),
            **_headers(content_type),
        )
        return str(answer["UploadId"])

    async def list_uploads(self, key: str) -> list[Unfinished]:
        return await self._sdk.call(key, self._sdk.uploads, key)

    async def _upload_part(self, key: str, handle: str, number: int, data: bytes | memoryview) -> Part:
        summed = checksum(self._settings, data)
        answer = await self._send(
            key, "upload_part", Key=key, UploadId=handle, PartNumber=number, Body=bytes(data), **summed
        )
        return Part(number, answer["ETag"].strip('"'), summed.get("ChecksumSHA256", ""))

    async def _complete_multipart(
        self, key: str, handle: str, parts: Sequence[Part], size: int, if_version: str | None
    ) -> ObjectInfo:
        listed = [described(part) for part in parts]
        answer = await self._write(
            key, "complete_multipart_upload", if_version, UploadId=handle, MultipartUpload={"Parts": listed}
        )
        return ObjectInfo(key, size, time.time_ns(), answer["ETag"].strip('"'))

    async def _abort_multipart(self, key: str, handle: str) -> None:
        await self._send(key, "abort_multipart_upload", Key=key, UploadId=handle)


def _headers(content_type: str | None) -> dict[str, str]:
    return {} if content_type is None else {"ContentType": content_type}


def _make_filesystem(settings: S3Settings, options: Mapping[str, Any]) -> Any:
    import s3fs  # noqa: PLC0415

    credentials = settings.credentials
    return s3fs.S3FileSystem(
        anon=credentials.anonymous,
        session=None if credentials.anonymous or "profile" in options else credentials.asynchronous_session(),
        endpoint_url=settings.endpoint,
        skip_instance_cache=True,
        use_listings_cache=False,
        **{
            "client_kwargs": {"region_name": settings.region},
            "config_kwargs": {
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                "connect_timeout": settings.connect_timeout,
                "read_timeout": settings.timeout,
                "max_pool_connections": settings.pool_size,
                "s3": {"addressing_style": "path" if settings.path_style else "virtual"},
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            **options,
        },
    )
