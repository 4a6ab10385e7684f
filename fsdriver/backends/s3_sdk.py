"""What the service's own SDK does for a bucket: everything obstore cannot, in a small pool of threads.

Multipart uploads with conditional completion, copies with metadata and conditions, conditional deletes, and any object
whose key obstore refuses or changes (`is_plain`). All methods of `Sdk` block; `Sdk.call` runs them off the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.httpsession import get_cert_path

from fsdriver.backends.model import ABSENT, ObjectInfo
from fsdriver.backends.multipart import Part, Unfinished, part_size_for
from fsdriver.backends.s3_errors import failure_of, to_error
from fsdriver.backends.s3_list import Lister
from fsdriver.backends.s3_page import nanoseconds
from fsdriver.backends.source import Source, body, piece, size_of
from fsdriver.errors import BackendError, Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fsdriver.backends.s3_settings import S3Settings

T = TypeVar("T")

THREADS: Final = 8
COPY_LIMIT: Final = 5 << 30
"""Largest object one CopyObject takes, bytes (Amazon S3 API Reference, CopyObject)."""
COPY_PART: Final = 256 << 20
KEPT_HEADERS: Final = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType")


def is_plain(key: str) -> bool:
    """Whether obstore sends ``key`` unchanged: no empty segments, none of dots, no control characters."""
    if not key.isprintable() and any(ord(character) < 0x20 or ord(character) == 0x7F for character in key):
        return False
    return not any(segment in {"", ".", ".."} for segment in key.split("/"))


def conditions(if_version: str | None) -> dict[str, str]:
    """The SDK's arguments for ``if_version``."""
    if if_version is None:
        return {}
    return {"IfNoneMatch": "*"} if if_version == ABSENT else {"IfMatch": f'"{if_version}"'}


def algorithm(settings: S3Settings) -> dict[str, str]:
    """The SDK's argument for an upload whose parts have checksums."""
    return {"ChecksumAlgorithm": "SHA256"} if settings.checksums else {}


def checksum(settings: S3Settings, data: bytes | memoryview) -> dict[str, str]:
    """The SDK's argument for the sum of a body that the service is to check."""
    return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()} if settings.checksums else {}


def described(part: Part) -> dict[str, Any]:
    """One part of an upload that is to be completed."""
    summed = {"ChecksumSHA256": part.checksum} if part.checksum else {}
    return {"PartNumber": part.number, "ETag": f'"{part.tag}"'} | summed


class Sdk:
    """boto3 on one bucket, imported at first use; not usable after a fork.

    Parameters
    ----------
    settings : S3Settings
    """

    copy_limit = COPY_LIMIT
    copy_part = COPY_PART

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._client: Any = None
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(min(THREADS, settings.pool_size), thread_name_prefix="fsdriver-s3")
        self._pid = os.getpid()
        self._address = ""
        self.lister = Lister(settings, self.client, self.address)

    def client(self) -> Any:
        """The boto3 client; its own retries are off and its checksums are sent only where the service demands them."""
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _make_client(self) -> Any:
        from botocore import UNSIGNED  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        settings = self._settings
        config = Config(
            signature_version=UNSIGNED if settings.credentials.anonymous else "s3v4",
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.timeout,
            max_pool_connections=settings.pool_size,
            s3={"addressing_style": "path" if settings.path_style else "virtual"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = settings.credentials.session().client(
            "s3", endpoint_url=settings.endpoint, region_name=settings.region, config=config
        )
        client.meta.events.register("before-call.s3.HeadBucket", _know_no_region)
        return client

    def address(self) -> str:
        """URL of the bucket, up to where a key begins."""
        if not self._address:
            url: str = self.client().generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": "k"})
            self._address = url.partition("?")[0].removesuffix("k")
        return self._address

    def secure(self) -> ssl.SSLContext:
        """What TLS connections of the SDK trust."""
        return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or get_cert_path(verify=True))

    async def call(self, key: str, function: Callable[..., T], *arguments: Any, see_through: bool = False) -> T:
        """Run a blocking function of this class in its threads and translate its errors.

        Parameters
        ----------
        key : str
            Named in errors.
        see_through : bool
            When cancelled, wait for the thread first: what follows (an abort) must not overtake the request.
        """
        if os.getpid() != self._pid:
            raise BackendError("this store was opened before the process forked; open it anew in the child", key)
        future = self._executor.submit(self._translated, key, function, arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if see_through and not future.cancel():
                await asyncio.gather(asyncio.wrap_future(future), return_exceptions=True)
            raise

    def _translated(self, key: str, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return function(*arguments)
        except (BotoCoreError, ClientError) as error:
            raise to_error(failure_of(error), key, self._bucket, self._settings.location) from error

    def close(self) -> None:
        """End threads and connections; requests under way are waited for by no one."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.lister.close()
        if self._client is not None:
            self._client.close()

    # -- whole objects -------------------------------------------------------------------------------------------------

    def head(self, key: str) -> ObjectInfo:
        return self._info(key, self.describe(key))

    def get(self, key: str, start: int, end: int | None, version: str | None) -> tuple[memoryview, int]:
        """Bytes of a range, and the size of the whole object."""
        arguments: dict[str, Any] = {} if version is None else {"IfMatch": f'"{version}"'}
        if start or end is not None:
            arguments["Range"] = f"bytes={start}-" + ("" if end is None else str(end - 1))
        answer = self.client().get_object(Bucket=self._bucket, Key=key, **arguments)
        data = answer["Body"].read()
        span = answer.get("ContentRange")
        return memoryview(data), int(span.rpartition("/")[2]) if span else answer["ContentLength"]

    def put(
        self, key: str, source: Source, metadata: Mapping[str, str], if_version: str | None, headers: Mapping[str, str]
    ) -> ObjectInfo:
        size = size_of(source)
        answer = self.client().put_object(
            Bucket=self._bucket,
            Key=key,
            Body=body(piece(source, 0, size)),
            Metadata=dict(metadata),
            **checksum(self._settings, piece(source, 0, size)),
            **headers,
            **conditions(if_version),
        )
        return ObjectInfo(key, size, time.time_ns(), answer["ETag"].strip('"'), dict(metadata))

    def delete(self, key: str, if_version: str | None) -> None:
        try:
            self.client().delete_object(Bucket=self._bucket, Key=key, **conditions(if_version))
        except self.client().exceptions.ClientError as error:
            # With a condition a missing key is an error; without one the service reports success.
            if failure_of(error).code != "NoSuchKey":
                raise

    def delete_batch(self, keys: Sequence[str]) -> None:
        """One DeleteObjects; raises the first of the failures it reports."""
        answer = self.client().delete_objects(
            Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        for failed in answer.get("Errors", ()):
            error = {"Error": {"Code": failed.get("Code"), "Message": failed.get("Message")}}
            raise to_error(
                failure_of(_ReportedError(error)), failed.get("Key", ""), self._bucket, self._settings.location
            )

    def sign(self, key: str, expires: int) -> str:
        url: str = self.client().generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=expires
        )
        return url

    # -- multipart -----------------------------------------------------------------------------------------------------

    def begin(self, key: str, metadata: Mapping[str, str], headers: Mapping[str, str]) -> str:
        answer = self.client().create_multipart_upload(
            Bucket=self._bucket, Key=key, Metadata=dict(metadata), **algorithm(self._settings), **headers
        )
        return str(answer["UploadId"])

    def upload_part(self, key: str, upload: str, number: int, data: bytes | memoryview) -> Part:
        summed = checksum(self._settings, data)
        answer = self.client().upload_part(
            Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=number, Body=body(data), **summed
        )
        return Part(number, answer["ETag"].strip('"'), summed.get("ChecksumSHA256", ""))

    def complete(self, key: str, upload: str, parts: Sequence[Part], if_version: str | None) -> str:
        """The version of the finished object."""
        listed = [described(part) for part in parts]
        answer = self.client().complete_multipart_upload(
            Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": listed}, **conditions(if_version)
        )
        return str(answer["ETag"]).strip('"')

    def abort(self, key: str, upload: str) -> None:
        try:
            self.client().abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except self.client().exceptions.ClientError as error:
            if failure_of(error).code != "NoSuchUpload":
                raise

    def uploads(self, key: str) -> list[Unfinished]:
        """Uploads of one key that are neither complete nor aborted; the first thousand."""
        answer = self.client().list_multipart_uploads(Bucket=self._bucket, Prefix=key)
        return [Unfinished(one["UploadId"], one["Initiated"]) for one in answer.get("Uploads", ()) if one["Key"] == key]

    # -- copies --------------------------------------------------------------------------------------------------------

    def describe(self, key: str) -> dict[str, Any]:
        """All headers of an object, as the SDK gives them."""
        try:
            answer: dict[str, Any] = self.client().head_object(Bucket=self._bucket, Key=key)
        except self.client().exceptions.ClientError as error:
            if failure_of(error).status == HTTPStatus.BAD_REQUEST:
                # A HEAD has no body that tells why: keys that have expired are one reason.
                self.client().get_object(Bucket=self._bucket, Key=key, Range="bytes=0-0")["Body"].close()
            raise
        return answer

    def copy(
        self,
        original: Mapping[str, Any],
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
    ) -> ObjectInfo:
        """Copy what `describe` described; an empty object is written anew (some services cannot copy ``dir/``)."""
        etag, size = original["ETag"].strip('"'), original["ContentLength"]
        if source_version is not None and etag != source_version:
            raise Stale("the source of the copy was changed by someone else meanwhile; read it again", source)
        kept = original["Metadata"] if metadata is None else dict(metadata)
        headers = {name: original[name] for name in KEPT_HEADERS if original.get(name)}
        if size == 0:
            return self.put(target, b"", kept, if_version, headers)
        origin: dict[str, Any] = {
            "CopySource": {"Bucket": self._bucket, "Key": source}, "CopySourceIfMatch": original["ETag"],
        }  # fmt: skip
        if size > self.copy_limit:
            version = self._copy_parts(target, origin, size, if_version, kept, headers)
        else:
            directive = {} if metadata is None else {"MetadataDirective": "REPLACE", "Metadata": kept, **headers}
            version = self._copy_whole(target, {**origin, **directive}, if_version)
        return ObjectInfo(target, size, time.time_ns(), version, kept)

    def copy_known(
        self, size: int, source: str, target: str, source_version: str, if_version: str | None
    ) -> ObjectInfo:
        """Copy an object whose version and size are known, with its metadata; not an empty one."""
        origin = {"CopySource": {"Bucket": self._bucket, "Key": source}, "CopySourceIfMatch": f'"{source_version}"'}
        return ObjectInfo(target, size, time.time_ns(), self._copy_whole(target, origin, if_version))

    def _copy_whole(self, target: str, arguments: Mapping[str, Any], if_version: str | None) -> str:
        answer = self.client().copy_object(Bucket=self._bucket, Key=target, **arguments, **conditions(if_version))
        return str(answer["CopyObjectResult"]["ETag"]).strip('"')

    def _copy_parts(
        self, target: str, origin: dict[str, Any], size: int, if_version: str | None,
        metadata: Mapping[str, str], headers: Mapping[str, str],
    ) -> str:  # fmt: skip
        upload = self.begin(target, metadata, headers)
        step = part_size_for(size, self.copy_part)

        def one(number: int, start: int) -> Part:
            span = f"bytes={start}-{min(start + step, size) - 1}"
            answer = self.client().upload_part_copy(
                Bucket=self._bucket, Key=target, UploadId=upload, PartNumber=number, CopySourceRange=span, **origin
            )
            copied = answer["CopyPartResult"]
            return Part(number, copied["ETag"].strip('"'), copied.get("ChecksumSHA256", ""))

        try:
            with ThreadPoolExecutor(4, thread_name_prefix="fsdriver-s3-copy") as executor:
                futures = [executor.submit(one, at, start) for at, start in enumerate(range(0, size, step), 1)]
                try:
                    parts = [future.result() for future in futures]
                finally:
                    executor.shutdown(wait=True, cancel_futures=True)
            return self.complete(target, upload, parts, if_version)
        except Exception:
            self.abort(target, upload)
            raise

    def _info(self, key: str, answer: Mapping[str, Any]) -> ObjectInfo:
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return ObjectInfo(
            key, answer["ContentLength"], nanoseconds(answer["LastModified"]), answer["ETag"].strip('"'), metadata
        )


def _know_no_region(**_: Any) -> tuple[Any, dict[str, Any]]:
    """Answer in place of the service what the SDK asks it about a bucket when it was redirected.

    A service that redirects that request as well would be asked for ever; where a bucket is, its ``region`` says.
    """
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415
    from botocore.compat import HTTPHeaders  # noqa: PLC0415

    refused = {"Error": {"Code": "301"}, "ResponseMetadata": {"HTTPStatusCode": 301, "HTTPHeaders": {}}}
    return AWSResponse("", 301, HTTPHeaders(), None), refused


class _ReportedError(Exception):
    """A failure that a successful answer reports for one of its keys."""

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__()
        self.response = response
