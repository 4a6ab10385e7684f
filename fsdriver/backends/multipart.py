"""Upload of one large object in parts, aborted as a whole if anything fails."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fsdriver.backends.source import Source, check_settled, load
from fsdriver.errors import FsdriverError, TimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fsdriver.backends.base import Backend, ObjectInfo

log = logging.getLogger(__name__)

BEGINNING: Final = "?"
"""Begins what stands for the handle of an upload in the `UploadLog` until the store has told that: the time follows."""
SKEW: Final = timedelta(minutes=15)
"""By how much a host's clock may differ from the store's (S3 API Reference, RequestTimeTooSkewed)."""
POLL: Final = 0.05
"""Seconds between looks whether a store has answered another process."""
MOST_PARTS: Final = 10_000
"""Parts S3 accepts in one upload (Amazon S3 User Guide, multipart upload limits)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part: its number (from 1), the tag the store gave it, and the checksum it was sent with, if any."""

    number: int
    tag: str
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that was begun: its handle, and when that was by the store's clock."""

    handle: str
    begun: datetime


def part_size_for(size: int, preferred: int) -> int:
    """Bytes of a part so that ``size`` bytes fit into `MOST_PARTS`, rounded up to MiB."""
    least = -(-size // MOST_PARTS)
    return preferred if least <= preferred else -(-least // (1 << 20)) << 20


def tag_of_parts(parts: Sequence[Part]) -> str | None:
    """The ETag S3 gives these parts as one object (MD5 of their MD5s, a dash, their number); None without MD5s."""
    try:
        digests = b"".join(bytes.fromhex(part.tag) for part in parts)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


async def upload(
    backend: Backend,
    key: str,
    source: Source,
    size: int,
    *,
    metadata: Mapping[str, str] | None,
    if_version: str | None,
    content_type: str | None,
    doubtful: bool = False,
) -> ObjectInfo:
    """Send ``source``, `Backend.parts_in_flight` parts at a time; after a failure or cancellation none is left."""
    step = part_size_for(size, backend.part_size)
    handle = await _begin(backend, key, metadata, content_type)
    try:
        parts = await _send_parts(backend, key, handle, source, size, step)
        check_settled(source)
        info = await backend.complete_multipart(key, handle, parts, size, if_version, metadata, doubtful=doubtful)
        if backend.uploads is not None:
            backend.uploads.ended(key, handle)
        return replace(info, metadata=dict(metadata or {}))
    except BaseException:  # a cancelled upload leaves no parts either
        await asyncio.shield(_abort(backend, key, handle))
        raise


async def _begin(backend: Backend, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> str:
    """Open an upload; from before the store is asked on, the log has something of it."""
    log_of_uploads, mark = backend.uploads, f"{BEGINNING}{time.time_ns():x}"
    if log_of_uploads is not None:
        log_of_uploads.begun(key, mark)
    beginning = asyncio.create_task(backend.begin_multipart(key, metadata, content_type))
    try:
        try:
            handle = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # The store may have opened the upload already: learn its handle, so that it can be removed.
            with contextlib.suppress(FsdriverError):
                await _abort(backend, key, await beginning)
            raise
        if log_of_uploads is not None:
            log_of_uploads.begun(key, handle)
        return handle
    finally:
        if log_of_uploads is not None:
            log_of_uploads.ended(key, mark)


async def _send_parts(backend: Backend, key: str, handle: str, source: Source, size: int, step: int) -> list[Part]:
    numbered = zip(itertools.count(1), range(0, size, step), strict=False)
    parts: list[Part] = []

    async def worker() -> None:
        for number, start in numbered:
            data = await load(source, start, min(step, size - start))
            parts.append(await backend.upload_part(key, handle, number, data))

    tasks = [asyncio.create_task(worker()) for _ in range(backend.parts_in_flight)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return sorted(parts, key=lambda part: part.number)


async def _abort(backend: Backend, key: str, handle: str) -> None:
    try:
        await backend.abort_multipart(key, handle)
        if backend.uploads is not None:
            backend.uploads.ended(key, handle)
    except FsdriverError as error:
        # The upload's own failure is what the caller must see; the store's life-cycle rules remove what is left.
        backend.counters.errors += 1
        log.warning("%s: the parts of a failed upload could not be removed: %s", key, error)


async def abort_lost(backend: Backend, key: str, handle: str) -> None:
    """Remove uploads that were begun just before ``handle`` by requests whose answer was lost: nobody knows their handles.

    One that another host began for the same key in these seconds goes as well; it then tries again.
    """
    try:
        there = await backend.list_uploads(key)
        own = next(one.begun for one in there if one.handle == handle)
        oldest = own - timedelta(seconds=backend.retry.deadline)
        for one in there:
            if one.handle != handle and oldest <= one.begun <= own:
                await backend.abort_multipart(key, one.handle)
    except (FsdriverError, StopIteration) as error:
        # What matters is the upload that goes on; the store's life-cycle rules remove what is left.
        log.warning("%s: an upload whose beginning was not answered could not be removed: %s", key, error)


async def abort_unanswered(backend: Backend, key: str, mark: str) -> None:
    """Remove what a process may have begun that died before it was told the handle.

    Nothing but time tells it from what another host begins for the same key within `SKEW`: that goes as well, and is tried again.

    Raises
    ------
    BackendError
        The store cannot be asked; TimedOut while a living process on this host waits for an answer of the same kind.
    """
    noted = datetime.fromtimestamp(int(mark.removeprefix(BEGINNING), 16) / 1e9, UTC)
    found = [one.handle for one in await backend.list_uploads(key) if abs(one.begun - noted) <= SKEW]
    if not found or backend.uploads is None:
        return
    deadline = time.monotonic() + backend.retry.deadline
    # What was listed is known by now, or was begun by a process that has not been told yet.
    while any(one.startswith(BEGINNING) for one in backend.uploads.living(key)):
        if time.monotonic() > deadline:
            raise TimedOut("another process is beginning to upload it", key)
        await asyncio.sleep(POLL)
    for handle in set(found).difference(backend.uploads.living(key)):
        await backend.abort_multipart(key, handle)
