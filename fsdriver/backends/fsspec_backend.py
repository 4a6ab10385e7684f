"""Any storage service that has an fsspec file system, as a backend.

fsspec promises less than `Backend` does: conditions are checked and then carried out in two steps
(`Capabilities.conditional_put` is False), user metadata is not kept, and a put is all or nothing only where the file
system's own is. Asynchronous file systems run on the event loop, others in threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import fsspec.core

from fsdriver.backends.base import ABSENT, Backend, Capabilities, ObjectInfo, Page, Source
from fsdriver.backends.s3_page import nanoseconds
from fsdriver.backends.source import path_of, piece, size_of
from fsdriver.errors import (
    AccessDenied,
    BackendError,
    ContainerMissing,
    FsdriverError,
    IsDirectory,
    NotDirectory,
    NotFound,
    Stale,
    Throttled,
    TimedOut,
    Unreachable,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsdriver.backends.retry import RetryPolicy

log = logging.getLogger(__name__)

PAGE_SIZE: Final = 1000
THREADS: Final = 16
BUCKETS: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "ocilake"})
"""Schemes whose first segment is a container, and whose directories are only implied by keys."""
VERSION_FIELDS: Final = ("etag", "ETag", "md5Hash", "md5", "content_md5", "generation", "sha256", "blob_id", "checksum")
TIME_FIELDS: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "timeModified", "created")


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys lie in an fsspec file system.

    Attributes
    ----------
    root : str
        What stands before a key in the file system's paths.
    container : str
        Bucket, or ``""``.
    location : str
        Host or account.
    prefix : str
        The URL's key prefix.
    """

    root: str
    container: str
    location: str
    prefix: str

    @classmethod
    def of(cls, scheme: str, url: str, path: str) -> Place:
        """Take the path that fsspec made of a URL apart."""
        if scheme in BUCKETS:
            container, _, prefix = path.partition("/")
            return cls(f"{container}/", container, "", prefix.strip("/"))
        parts = urlsplit(url)
        if scheme in {"http", "https"}:
            return cls(f"{scheme}://{parts.netloc}/", "", parts.netloc, parts.path.strip("/"))
        prefix = path.strip("/")
        host = parts.netloc if parts.netloc and not prefix.startswith(parts.netloc) else ""
        return cls(path[: path.index(prefix)] if prefix else path, "", host.rpartition("@")[2], prefix)


class FsspecBackend(Backend):
    """One container of an fsspec file system.

    Parameters
    ----------
    scheme : str
    filesystem : fsspec.AbstractFileSystem
        With its listings cache off.
    place : Place
    retry : RetryPolicy
    """

    def __init__(self, scheme: str, filesystem: Any, place: Place, retry: RetryPolicy) -> None:
        super().__init__(scheme, place.location, place.container, retry)
        self._fs = filesystem
        self._place = place
        self._told_metadata = False
        self._threads: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        is_bucket = scheme in BUCKETS
        self.capabilities = Capabilities(
            server_copy=True,
            markers=not is_bucket,
            directories=not is_bucket,
            strong_versions=is_bucket,
            read_only=scheme in {"http", "https"},
        )

    async def close(self) -> None:
        await super().close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- calling fsspec ------------------------------------------------------------------------------------------------

    def _workers(self) -> ThreadPoolExecutor:
        """Threads of this store alone: one that hangs takes none from others. Those of a parent do not survive a fork."""
        if self._threads is None or self._pid != os.getpid():
            self._threads, self._pid = ThreadPoolExecutor(THREADS, "fsdriver-fsspec"), os.getpid()
        return self._threads

    async def _do(self, key: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system, as a coroutine if it has one, and translate its failure."""
        try:
            if self._fs.async_impl:
                return await getattr(self._fs, f"_{method}")(*arguments, **options)
            call = partial(getattr(self._fs, method), *arguments, **options)
            return await asyncio.get_running_loop().run_in_executor(self._workers(), call)
        except (FsdriverError, asyncio.CancelledError):
            raise
        except Exception as error:
            # File systems raise what their libraries raise.
            raise self._translate(error, key) from error

    def _translate(self, error: Exception, key: str) -> FsdriverError:
        status = getattr(error, "status", None) or getattr(error, "code", None)
        detail = f"{type(error).__name__}: {error}"
        name = type(error).__name__
        kinds: list[tuple[bool, Callable[[], FsdriverError]]] = [
            (isinstance(error, FileNotFoundError) or status == 404, lambda: NotFound("no such object", key)),
            (isinstance(error, FileExistsError), lambda: Stale("the object exists already", key)),
            (isinstance(error, IsADirectoryError), lambda: IsDirectory("it is a directory", key)),
            (isinstance(error, NotADirectoryError), lambda: NotDirectory("a part of the path is a file", key)),
            (
                isinstance(error, PermissionError) or status in {401, 403},
                lambda: AccessDenied(f"{detail}; check the credentials of the backend", key),
            ),
            (status in {429, 503}, lambda: Throttled(detail, key)),
            (
                isinstance(error, TimeoutError) or "Timeout" in name,
                lambda: TimedOut(f"no answer in time ({detail}); raise 'timeout' of the backend", key),
            ),
            (
                isinstance(error, ConnectionError) or "Connect" in name or "Disconnected" in name,
                lambda: Unreachable(f"no connection to the service: {detail}", key),
            ),
            (isinstance(error, NotImplementedError), lambda: Unsupported(f"{self.scheme}:// cannot do this", key)),
        ]
        for matches, make in kinds:
            if matches:
                return make()
        other = BackendError(detail, key)
        other.temporary = status in {408, 500, 502, 504}
        return other

    def _path(self, key: str) -> str:
        return f"{self._place.root}{key.removesuffix('/')}"

    def _info(self, entry: Mapping[str, Any]) -> ObjectInfo:
        name = str(entry["name"])
        key = name.removeprefix(self._place.root) if name.startswith(self._place.root) else name.lstrip("/")
        size, moment = int(entry.get("size") or 0), _moment(entry)
        if entry["type"] == "directory":
            key = f"{key.rstrip('/')}/"
        tag = next((str(entry[name]).strip('"') for name in VERSION_FIELDS if entry.get(name)), f"{size:x}-{moment:x}")
        return ObjectInfo(key, size, moment, tag)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _check(self, prefix: str) -> None:
        if self.container:
            await self._prove_container()
        else:
            await self._list_page(prefix, True, "", None)

    async def _prove_container(self) -> None:
        try:
            await self._do(self.container, "info", self.container)
        except NotFound as error:
            raise ContainerMissing(
                "the container does not exist; create it or correct the url", self.container
            ) from error

    async def _head(self, key: str) -> ObjectInfo:
        try:
            info = self._info(await self._do(key, "info", self._path(key)))
        except NotFound:
            if self.container:
                await self._prove_container()
            raise
        if info.key != key:
            raise NotFound("no such object", key)
        return info

    async def _get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview:
        if end is not None and end <= start:
            return memoryview(b"")
        span = {} if not start and end is None else {"start": start, "end": end}
        try:
            data = memoryview(await self._do(key, "cat_file", self._path(key), **span))
        except BackendError as error:
            if getattr(error.__cause__, "status", None) != 416:
                raise
            data = memoryview(b"")
        except NotFound:
            if self.container:
                await self._prove_container()
            raise
        if version is not None and (await self._head(key)).version != version:
            raise Stale("the object was changed by someone else meanwhile; read it again", key)
        return data

    async def _list_page(self, prefix: str, delimiter: bool, start_after: str, token: Any) -> tuple[Page, Any]:
        found: list[ObjectInfo | str] = (
            token if token is not None else await self._entries(prefix, delimiter, start_after)
        )
        here, rest = found[:PAGE_SIZE], found[PAGE_SIZE:]
        page = Page([one for one in here if isinstance(one, ObjectInfo)], [one for one in here if isinstance(one, str)])
        return page, rest or None

    async def _entries(self, prefix: str, delimiter: bool, start_after: str) -> list[ObjectInfo | str]:
        """Everything under a prefix in key order: fsspec has no pages."""
        directory = prefix.rpartition("/")[0]
        try:
            if delimiter:
                entries = await self._do(prefix, "ls", self._path(directory), detail=True)
            else:
                entries = (await self._do(prefix, "find", self._path(directory), detail=True, withdirs=True)).values()
        except NotFound:
            if self.container:
                await self._prove_container()
            return []
        found: dict[str, ObjectInfo | str] = {}
        for entry in entries:
            info = self._info(entry)
            is_directory = info.key.endswith("/")
            if (
                info.key.startswith(prefix)
                and info.key > start_after
                and (not is_directory or self.capabilities.markers)
            ):
                found[info.key] = info
            if is_directory and delimiter and info.key.startswith(prefix) and info.key != prefix:
                if info.key > start_after or start_after.startswith(info.key):
                    found[info.key] = info.key
                else:
                    found.pop(info.key, None)
        if directory and prefix == f"{directory}/" and prefix > start_after and self.capabilities.markers:
            found.setdefault(prefix, ObjectInfo(prefix, 0, 0, ""))
        return [found[key] for key in sorted(found)]

    async def sign(self, key: str, expires: int) -> str:
        return str(await self._do(key, "sign", self._path(key), expiration=expires))

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _demand(self, key: str, if_version: str | None) -> None:
        """Check a condition before the write that follows; the two are not one step."""
        if if_version is None:
            return
        try:
            present = (await self._head(key)).version
        except NotFound:
            present = ABSENT
        if present != if_version:
            raise Stale("the object was changed by someone else meanwhile; read it again", key)

    async def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
    ) -> ObjectInfo:
        if metadata and not self._told_metadata:
            self._told_metadata = True
            log.warning("%s:// keeps no user metadata; attributes are not stored with objects", self.scheme)
        await self._demand(key, if_version)
        path = self._path(key)
        if key.endswith("/"):
            if not self.capabilities.markers:
                raise Unsupported(f"{self.scheme}:// through fsspec has no directory markers", key)
            await self._do(key, "makedirs", path, exist_ok=True)
            return await self._head(key)
        try:
            await self._send(key, path, source)
        except NotFound:
            # A service with real directories: make them, once it is known that they are missing.
            await self._do(key, "makedirs", path.rpartition("/")[0], exist_ok=True)
            await self._send(key, path, source)
        return await self._head(key)

    async def _send(self, key: str, path: str, source: Source) -> None:
        if (local := path_of(source)) is not None:
            await self._do(key, "put_file", str(local), path)
        else:
            await self._do(key, "pipe_file", path, bytes(piece(source, 0, size_of(source))))

    async def _delete(self, key: str, if_version: str | None) -> None:
        try:
            if if_version is not None and (await self._head(key)).version != if_version:
                raise Stale("the object was changed by someone else meanwhile; read it again", key)
            if key.endswith("/"):
                if not await self._do(key, "ls", self._path(key), detail=False):
                    await self._do(key, "rmdir", self._path(key))
            else:
                await self._do(key, "rm_file", self._path(key))
        except NotFound:
            return

    async def _copy(
        self,
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
        size: int | None,
    ) -> ObjectInfo:
        original = await self._head(source)
        if source_version is not None and original.version != source_version:
            raise Stale("the source of the copy was changed by someone else meanwhile; read it again", source)
        if source.endswith("/"):
            return await self._put(target, b"", None, if_version, None)
        await self._demand(target, if_version)
        await self._do(target, "cp_file", self._path(source), self._path(target))
        return await self._head(target)


def _moment(entry: Mapping[str, Any]) -> int:
    """Modification time in ns, from whichever field the file system uses; microseconds are exact."""
    for name in TIME_FIELDS:
        value = entry.get(name)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return nanoseconds(value)
        if isinstance(value, int | float):
            return round(value * 1_000_000) * 1000
    return 0


def open_filesystem(scheme: str, url: str, options: Mapping[str, Any], retry: RetryPolicy) -> tuple[FsspecBackend, str]:
    """The backend of any URL fsspec knows, and its key prefix."""
    # Instances and listings are cached by us; fsspec's caches know nothing of time to live.
    filesystem, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    place = Place.of(scheme, url, path)
    return FsspecBackend(scheme, filesystem, place, retry), place.prefix
