"""A backend whose objects are compressed or encrypted before they are sent: another backend, and what lies between.

Sizes, ranges and bytes are those before coding, everywhere. What the store tells of an object (its version, its conditions, its
time) is passed on. See docs/decisions/0025.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fsdriver.backends.codecs.coding import Encoded, Layout, encode
from fsdriver.backends.codecs.container import HEADER_SIZE, SMALLEST_HEADER, Header, parse
from fsdriver.backends.codecs.envelope import Keys
from fsdriver.backends.codecs.formats import Codec, Decoders
from fsdriver.backends.model import ObjectInfo, Page, UploadLog
from fsdriver.backends.source import Source, md5_of, size_of
from fsdriver.backends.store import Store
from fsdriver.errors import AccessDenied, Corrupt, NotFound, Stale, Unsupported

if TYPE_CHECKING:
    import builtins
    from pathlib import Path

    from fsdriver.backends.base import Backend

MARK: Final = "fsdriver-coded"
"""User metadata of an object that was sent here: ``1,plain``, or ``1,SIZE,FINGERPRINT,NUMBER``: of its bytes before
they were coded, and a random number, so that an equal object of another writer is not taken for ours."""
REMEMBERED: Final = 200_000
"""Versions of objects whose size is known."""
LAYOUTS: Final = 256
"""Objects whose index is kept; the largest has 1 MiB."""
AT_ONCE: Final = 16
"""Requests of one listing for sizes that are not known."""
PEEK: Final = 64 << 10
"""Bytes that are fetched to find out what an object is: a small one whole."""
INLINE: Final = 64 << 10
"""Bytes that are decoded on the event loop."""

_DIGITS: Final = 20

log = logging.getLogger("fsdriver.backends")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one version: bytes before and after coding (-1: unknown), and whether there was any."""

    size: int
    stored: int
    coded: bool
    fingerprint: str = ""


class CodedBackend(Store):
    """See the module.

    Parameters
    ----------
    inner : Backend
        Has the objects.
    codec : Codec or None
        Compresses what is written.
    keys : Keys
        Encrypt what is written, and decrypt what is read.
    """

    def __init__(self, inner: Backend, codec: Codec | None, keys: Keys) -> None:
        self.inner = inner
        self.scheme, self.counters, self.outage = inner.scheme, inner.counters, inner.outage
        self.retry = inner.retry
        self.capabilities = inner.capabilities
        self.put_limit, self.part_size = inner.put_limit, inner.part_size
        self._codec = codec
        self._keys = keys
        self._decoders = Decoders()
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()
        self._layouts: OrderedDict[tuple[str, str], Layout] = OrderedDict()
        self._asking = asyncio.Semaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.identity}>"

    @property
    def identity(self) -> str:
        """Not that of the store itself: nobody shall send to it in the clear what was promised to be encrypted."""
        return f"{self.inner.identity}#{'encrypted' if self._keys.writes else 'coded'}"

    @property
    def uploads(self) -> UploadLog | None:
        """See `Store`."""
        return self.inner.uploads

    @uploads.setter
    def uploads(self, uploads: UploadLog | None) -> None:
        self.inner.uploads = uploads

    # -- reading -----------------------------------------------------------------------------------------------------

    async def check(self, prefix: str = "") -> None:
        await self.inner.check(prefix)

    async def _check(self, prefix: str) -> None:
        await self.inner._check(prefix)  # noqa: SLF001 - a probe of the store itself

    async def head(self, key: str) -> ObjectInfo:
        return await self._logical(await self.inner.head(key))

    async def get(self, key: str, start: int = 0, end: int | None = None, version: str | None = None) -> memoryview:
        if version is None:
            version = (await self.inner.head(key)).version
        layout, peeked = await self._layout(key, version)
        if layout is None:
            return await self.inner.get(key, start, end, version)
        end = layout.header.size if end is None else min(end, layout.header.size)
        if start >= end:
            return memoryview(b"")
        first, last = layout.stored(start, end)
        data = peeked[first:last] if last <= len(peeked) else await self.inner.get(key, first, last, version)
        return await self._decoded(key, layout, start, end, data)

    async def fetch(self, key: str, most: int) -> tuple[ObjectInfo, memoryview]:
        info, data = await self.inner.fetch(key, most + most // 1000 + 4 * HEADER_SIZE)
        header = _parsed(key, data)
        size = len(data) if header is None else header.size
        if size > most:
            raise Corrupt(f"it has {size:,} bytes, and was not read: {most:,} is the most", key)
        if header is not None:
            index = data[header.stored - header.index_size : header.stored]
            layout = self._made(key, info.version, header, index)
            data = await self._decoded(key, layout, 0, size, data[slice(*layout.stored(0, size))])
        self._remember(key, info.version, Known(size, info.size, header is not None))
        return _shown(info, size), data

    async def list(self, prefix: str, *, delimiter: bool = True, start_after: str = "") -> AsyncIterator[Page]:
        async for page in self.inner.list(prefix, delimiter=delimiter, start_after=start_after):
            yield Page(await self._all_logical(page.objects), page.prefixes)

    async def list_some(self, prefix: str, *, start_after: str = "", limit: int) -> tuple[Page, bool]:
        page, more = await self.inner.list_some(prefix, start_after=start_after, limit=limit)
        return Page(await self._all_logical(page.objects), page.prefixes), more

    async def has_digest(self, key: str, version: str, md5: str) -> bool | None:
        info = await self.inner.head(key)
        if info.version != version:
            return None
        known = _read_mark(info)
        if known is not None and known.coded:
            return self._keys.matches(known.fingerprint, md5)
        return await self.inner.has_digest(key, version, md5) if known is not None else None

    async def is_made_of(self, info: ObjectInfo, path: Path) -> bool | None:
        found = await self.has_digest(info.key, info.version, await asyncio.to_thread(md5_of, path))
        return bool(found) if self._is_coded(info) else None

    def used(self, key: str) -> None:
        self.inner.used(key)

    async def sign(self, key: str, expires: int) -> str:
        raise Unsupported("its bytes are compressed or encrypted on the store: a URL would give those", key)

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
        size = size_of(source)
        coded = await self._encoded(source, size) if size else None
        marked = self._marked(metadata, size, coded)
        try:
            info = await self.inner.put(
                key, source if coded is None else coded.source, metadata=marked, if_version=if_version,
                content_type=content_type, doubtful=doubtful,
            )  # fmt: skip
        except Stale:
            own = await self._own(key, metadata, coded) if doubtful and if_version is not None else None
            if own is None:
                raise
            info = own
        finally:
            if coded is not None:
                coded.file.close()
        self._remember(key, info.version, Known(size, info.size, coded is not None))
        return replace(info, size=size, metadata=dict(metadata or {}))

    async def _encoded(self, source: Source, size: int) -> Encoded | None:
        work = asyncio.ensure_future(asyncio.to_thread(encode, source, size, self._codec, self._keys))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_let_go)  # the thread goes on
            raise

    async def _own(self, key: str, metadata: Mapping[str, str] | None, coded: Encoded | None) -> ObjectInfo | None:
        """The object, if an earlier attempt has made it: a data key is another one each time, so the ETag does not tell."""
        try:
            info = await self.inner.head(key)
        except NotFound:
            return None
        known = _read_mark(info)
        if coded is None or known is None or not self._keys.matches(known.fingerprint, coded.md5):
            return None
        return info if metadata and _without_mark(info.metadata) == dict(metadata) else None

    def stops_when_cancelled(self, size: int) -> bool:
        return False  # what is sent may be small enough for one request

    async def abort_multipart(self, key: str, handle: str) -> None:
        await self.inner.abort_multipart(key, handle)

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        await self.inner.delete(key, if_version=if_version)

    async def delete_many(self, keys: Sequence[str]) -> None:
        await self.inner.delete_many(keys)

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
        known = self._known.get((source, source_version)) if source_version is not None else None
        if metadata is not None:
            original = await self.inner.head(source)
            if source_version not in {None, original.version}:
                raise Stale("the source was changed by someone else meanwhile", source)
            source_version, mark = original.version, (original.metadata or {}).get(MARK)
            metadata = metadata if mark is None else {**metadata, MARK: mark}
        info = await self.inner.copy(
            source, target, source_version=source_version, if_version=if_version, metadata=metadata,
            size=known.stored if known is not None and known.stored >= 0 else None, doubtful=doubtful,
        )  # fmt: skip
        if known is None or known.size < 0:
            return await self._logical(info)
        self._remember(target, info.version, known)
        return _shown(info, known.size)

    async def close(self) -> None:
        await self.inner.close()

    # -- what an object is -------------------------------------------------------------------------------------------

    async def _logical(self, info: ObjectInfo) -> ObjectInfo:
        """An object of the store as those see it who know nothing of coding."""
        known = self._of(info)
        if known is None and info.metadata is None:
            info = await self.inner.head(info.key)
            known = self._of(info)
        if known is None:
            start = await self.inner.get(info.key, 0, HEADER_SIZE, info.version)
            header = _parsed(info.key, start)
            known = Known(info.size, info.size, False) if header is None else Known(header.size, info.size, True)
        self._remember(info.key, info.version, known)
        return _shown(info, known.size)

    def _of(self, info: ObjectInfo) -> Known | None:
        known = self._known.get((info.key, info.version))
        if known is not None:
            return known if known.size >= 0 else Known(info.size, info.size, False)
        if info.size <= SMALLEST_HEADER or info.key.endswith("/"):
            return Known(info.size, info.size, False)
        return _read_mark(info)

    async def _all_logical(self, infos: Sequence[ObjectInfo]) -> builtins.list[ObjectInfo]:
        async def ask(info: ObjectInfo) -> ObjectInfo:
            async with self._asking:
                try:
                    return await self._logical(info)
                except (NotFound, Stale, Corrupt, AccessDenied) as error:
                    # One odd object is no reason to show none; who opens it is told.
                    log.warning("%s: the size that is shown is that on the store: %s", info.key, error)
                    return _shown(info, info.size)

        known = [self._of(info) for info in infos]
        waits = iter(await asyncio.gather(*(ask(info) for info, one in zip(infos, known, strict=True) if one is None)))
        return [next(waits) if one is None else _shown(info, one.size) for info, one in zip(infos, known, strict=True)]

    async def _layout(self, key: str, version: str) -> tuple[Layout | None, memoryview]:
        """How an object is coded (None: it is not), and what of it came along."""
        layout, nothing = self._layouts.get((key, version)), memoryview(b"")
        if layout is not None:
            self._layouts.move_to_end((key, version))
            return layout, nothing
        known = self._known.get((key, version))
        if known is not None and not known.coded:
            return None, nothing
        start = await self.inner.get(key, 0, PEEK, version)
        header = _parsed(key, start)
        if header is None:
            if known is not None:
                raise Corrupt("its metadata say that it is compressed or encrypted, and its bytes are neither", key)
            self._remember(key, version, Known(-1, -1, False))
            return None, start
        index = start[header.stored - header.index_size : header.stored]
        if header.index_size and header.stored > len(start):
            index = await self.inner.get(key, header.stored - header.index_size, header.stored, version)
        return self._made(key, version, header, index), start

    def _made(self, key: str, version: str, header: Header, index: memoryview) -> Layout:
        try:
            layout = Layout(header, index, self._keys, self._decoders)
        except (Corrupt, AccessDenied) as error:
            raise type(error)(error.message, key) from error
        self._layouts[key, version] = layout
        if len(self._layouts) > LAYOUTS:
            self._layouts.popitem(last=False)
        return layout

    async def _decoded(self, key: str, layout: Layout, start: int, end: int, data: memoryview) -> memoryview:
        try:
            if end - start <= INLINE:
                return layout.decode(start, end, data)
            return await asyncio.to_thread(layout.decode, start, end, data)
        except Corrupt as error:
            self.counters.corrupt_answers += 1
            raise Corrupt(error.message, key) from error

    def _remember(self, key: str, version: str, known: Known) -> None:
        if known.size < 0 and (key, version) in self._known:
            return
        self._known[key, version] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _is_coded(self, info: ObjectInfo) -> bool:
        known = self._known.get((info.key, info.version))
        return known is not None and known.coded

    def _marked(self, metadata: Mapping[str, str] | None, size: int, coded: Encoded | None) -> Mapping[str, str] | None:
        if not self.capabilities.metadata:
            return metadata
        if coded is None:
            # Alone it would pass for what tells our object from an equal one of another writer.
            return {**metadata, MARK: "1,plain"} if metadata and size else metadata
        mark = f"1,{size},{self._keys.fingerprint(coded.md5)},{secrets.token_hex(4)}"
        return {**(metadata or {}), MARK: mark}


def _let_go(work: asyncio.Future[Encoded | None]) -> None:
    if not work.cancelled() and work.exception() is None and (coded := work.result()) is not None:
        coded.file.close()


def _parsed(key: str, start: memoryview) -> Header | None:
    try:
        return parse(start)
    except Corrupt as error:
        raise Corrupt(error.message, key) from error


def _read_mark(info: ObjectInfo) -> Known | None:
    version, _, told = (info.metadata or {}).get(MARK, "").partition(",")
    if version != "1":
        return None
    size, fingerprint, *_ = [*told.split(","), "", ""]
    if size == "plain":
        return Known(info.size, info.size, False)
    if not (size.isascii() and size.isdigit() and len(size) < _DIGITS):
        return None
    return Known(int(size), info.size, True, fingerprint)


def _without_mark(metadata: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (metadata or {}).items() if name != MARK}


def _shown(info: ObjectInfo, size: int) -> ObjectInfo:
    if info.size == size and (info.metadata is None or MARK not in info.metadata):
        return info
    return replace(info, size=size, metadata=None if info.metadata is None else _without_mark(info.metadata))
