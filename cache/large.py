"""The bytes of a large object, from wherever they are: the store, the partial file, or another process that fetches them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fsdriver.errors import Corrupt

from . import locks
from .files import LocalFile, SealedFile
from .keys import Fetch, ObjectKey
from .partial import Partial

if TYPE_CHECKING:
    from .fill import Fill
    from .request import Request, Storage

_INLINE_WRITE: Final = 1 << 20


async def fetched(storage: Storage, key: ObjectKey, fetch: Fetch, start: int, end: int) -> memoryview:
    """One request to the store, counted.

    Raises
    ------
    Corrupt
        It sent more or less than was asked for.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    data = await fetch(start, end)
    storage.pace(key.store).answered(end - start, loop.time() - began)
    storage.counts.fetches += 1
    if len(data) != end - start:
        raise Corrupt(f"the store sent {len(data)} bytes for {start}-{end}; reading it again may help", key.label)
    storage.counts.fetched_bytes += len(data)
    return memoryview(data).toreadonly()


class LargeFetch:
    """The part of a `Fill` that knows the partial file. Used on the event loop, but for `file`.

    Parameters
    ----------
    fill : Fill
    storage : Storage
    fetch : Fetch

    Attributes
    ----------
    partial : Partial or None
        None until the first request, and without a disk.
    """

    def __init__(self, fill: Fill, storage: Storage, fetch: Fetch) -> None:
        self.partial: Partial | None = None
        self._fill = fill
        self._storage = storage
        self._fetch = fetch
        self._opening: asyncio.Task[None] | None = None
        self._patience = locks.PATIENCE

    @property
    def file(self) -> LocalFile | None:
        """The file with the bytes that are present."""
        partial = self.partial
        return None if partial is None else partial.file

    async def claim(self, start: int, end: int) -> list[tuple[int, int]] | None:
        """What of a range is to be fetched here; waits while others do that.

        Returns
        -------
        list or None
            None: the sealed file is there, or nobody reads any more.
        """
        fill = self._fill
        if self.partial is None and fill.stored and not fill.settled:
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open())
            await asyncio.shield(self._opening)
        if fill.settled:
            return None
        try:
            return await self._missing(start, end)
        except OSError as error:
            self._give_up(error)
            return [(start, end)]

    def unclaim(self, start: int, end: int) -> None:
        """Let others fetch what is still missing."""
        if self.partial is not None:
            self.partial.unclaim(start, end)

    async def bytes(self, start: int, end: int, missing: Sequence[tuple[int, int]]) -> memoryview | None:
        """A range of which ``missing`` must come from the store; None if the rest is not what was written there."""
        partial = self.partial
        if partial is None or list(missing) == [(start, end)]:
            return await self._fetched(start, end)
        if not missing:
            return await self._read(partial, start, end)
        whole = bytearray(end - start)
        position = start
        for first, last in [*missing, (end, end)]:
            if position < first:
                there = await self._read(partial, position, first)
                if there is None:
                    return None
                whole[position - start : first - start] = there
            if first < last:
                whole[first - start : last - start] = await self._fetched(first, last)
            position = last
        return memoryview(whole).toreadonly()

    async def store(self, request: Request, missing: Sequence[tuple[int, int]]) -> bool:
        """Put what was fetched of a request into the file; False (told once) if the disk does not take it."""
        fill, storage, partial = self._fill, self._storage, self.partial
        loop = asyncio.get_running_loop()
        for start, end in missing:
            if partial is None or request.buffer is None or not fill.stored:
                return False
            data = request.buffer[start - request.start : end - request.start]
            try:
                if len(data) <= _INLINE_WRITE and storage.partials.ready(partial, len(data)):
                    partial.write(start, data)
                else:
                    await loop.run_in_executor(storage.workers, storage.partials.write, fill.key, partial, start, data)
            except OSError as error:
                self._give_up(error)
                return False
        return True

    async def seal(self) -> SealedFile:
        """All is in the file."""
        storage, partial = self._storage, self.partial
        assert partial is not None
        loop = asyncio.get_running_loop()
        sealed = await loop.run_in_executor(storage.workers, storage.partials.seal, self._fill.key, partial)
        self.partial = None
        return sealed

    def leave(self) -> None:
        """Nobody reads it here any more; the file stays."""
        partial, self.partial = self.partial, None
        if partial is not None:
            self._storage.leave(self._fill.key, partial)

    async def _open(self) -> None:
        fill, storage = self._fill, self._storage
        loop = asyncio.get_running_loop()
        partial = None
        try:
            while partial is None and not fill.settled:
                partial = await loop.run_in_executor(storage.workers, storage.partials.open, fill.key)
                if partial is None:
                    storage.fills.placed(fill)
        except OSError as error:
            self._give_up(error)
        self._opening = None
        self.partial = partial
        if not fill.stored:
            self.leave()

    def _give_up(self, error: OSError) -> None:
        if self._fill.stored:
            self._fill.stored = False
            self._storage.disk_failed(self._fill.key, error)

    async def _missing(self, start: int, end: int) -> list[tuple[int, int]] | None:
        partial = self.partial
        if partial is None or not self._fill.stored:
            return [(start, end)]
        loop = asyncio.get_running_loop()
        pause, longest = locks.POLLS
        deadline = loop.time() + self._patience
        while not partial.claim(start, end):
            if loop.time() >= deadline:
                self._patience = 0.0
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            if not partial.missing(start, end):
                break
        missing = partial.missing(start, end)
        if missing:
            return missing
        if not (partial.ended and self._storage.fills.placed(self._fill)):
            return []
        partial.unlock()
        return None

    async def _read(self, partial: Partial, start: int, end: int) -> memoryview | None:
        loop = asyncio.get_running_loop()
        try:
            data = await loop.run_in_executor(self._storage.workers, partial.read, start, end)
        except OSError as error:
            self._give_up(error)
            return None
        if data is None:
            self._storage.corrupt(self._fill.key)
        return data

    async def _fetched(self, start: int, end: int) -> memoryview:
        return await fetched(self._storage, self._fill.key, self._fetch, start, end)
