"""What the faces hold to read one version of one object, wherever its bytes are."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from fsdriver.errors import Corrupt

from .blocks import GRAIN
from .files import LocalFile, SealedFile
from .fill import WHOLE, Fill
from .keys import Fetch, FetchNow, ObjectKey
from .ranges import joined
from .readahead import Plan, ReadAhead


class Owner(Protocol):
    """What a reader needs of the disk cache."""

    def release(self, source: SealedFile | Fill) -> None: ...
    def attach(self, key: ObjectKey, fetch: Fetch) -> SealedFile | Fill: ...
    def used(self, key: ObjectKey) -> None: ...
    def spoiled(self, key: ObjectKey) -> None: ...


_attaching = threading.Lock()
"""Guards the few instructions that decide who attaches a reader."""
os.register_at_fork(before=_attaching.acquire, after_in_parent=_attaching.release, after_in_child=_attaching.release)


class Reader:
    """A complete local file, or a partial one that fetches what is asked. Thread-safe; close it.

    Several readers share one fill: the first pays, all read. Made by `DiskCache` only. One that was made without a source
    looks for it when it is first needed (`attach`).

    Attributes
    ----------
    key : ObjectKey
    size : int
        Bytes of the object.
    closed : bool
        `close` was called.
    """

    def __init__(
        self,
        owner: Owner,
        key: ObjectKey,
        source: SealedFile | Fill | None,
        fetch: Fetch | None = None,
        now: FetchNow | None = None,
    ) -> None:
        self.key = key
        self.size = key.size
        self._owner = owner
        self._fetch = fetch
        self._now = now
        self._source: SealedFile | Fill | None = None
        self._ahead: ReadAhead | None = None
        self._file: LocalFile | None = None
        self.closed = False
        if source is not None:
            self._begin(source)

    # -- the local file ----------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """All bytes are in one local file. A reader of a fill becomes complete when the fill ends."""
        return self._local_file() is not None

    def attach(self) -> SealedFile | Fill:
        """Find the sealed file, or begin a fill, unless that was done; from then on eviction spares the file."""
        source = self._source
        if source is not None:
            return source
        if self._fetch is None or self.closed:
            raise ValueError(f"read of a closed reader: {self.key.label}")
        found = self._owner.attach(self.key, self._fetch)
        with _attaching:
            if self._source is None and not self.closed:
                self._begin(found)
                return found
        self._owner.release(found)
        return self.attach()

    @property
    def sealed(self) -> SealedFile | None:
        """The complete file, shared by the readers of this process."""
        source = self._source
        return source.sealed if isinstance(source, Fill) else source

    @property
    def path(self) -> Path | None:
        """Where the complete file lies; None while partial, and when the cache had no room to keep it."""
        sealed = self.sealed
        return Path(sealed.path) if sealed is not None and sealed.path is not None else None

    def fileno(self) -> int | None:
        """Descriptor of the complete file; None while partial, and if it is encrypted.

        All readers of this file in the process share it, and so its offset: use pread(2) or mmap(2), or `duplicate`.
        The kernel and mmap hold the file's shared lock for as long as they hold the descriptor's open file.
        """
        file = self._local_file()
        return None if file is None or not file.plain else file.descriptor

    def duplicate(self) -> int | None:
        """A read-only descriptor of the caller's own, with its own offset and shared lock; None as with `fileno`.

        `DiskCache.unseal` counts it like another process's.
        """
        file = self._local_file()
        return None if file is None or not file.plain else file.duplicate()

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_now(self, offset: int, size: int) -> bytes | memoryview | None:
        """Bytes that need no network, in the calling thread; None when some do. Less than ``size`` only at the end."""
        file = self._local_file()
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        if file is not None:
            try:
                return file.read(offset, end - offset)
            except Corrupt:
                self._renew()
        fill = self._fill()
        data = fill.local(offset, end)
        if data is not None:
            plan = self._observe(offset, end)
            if plan is not None:
                fill.suggest(plan)
        return data

    def fetch_now(self, done: Callable[[], None]) -> bool:
        """Have a thread fetch a small object whole, without the event loop; ``done`` is called there, then read again.

        Returns
        -------
        bool
            False if this cannot be (any more): use `read`.
        """
        source = self._source
        if self._now is None or not isinstance(source, Fill) or source.small is None:
            return False
        return source.small.begin(self._now, done)

    def fetch_here(self) -> None:
        """As `fetch_now`, in the calling thread; then `read`, which also tells what went wrong."""
        source = self._source
        if self._now is not None and isinstance(source, Fill) and source.small is not None:
            source.small.here(self._now)

    @property
    def small(self) -> bool:
        """Whether `fetch_now` is worth trying."""
        return self._now is not None and self.size <= WHOLE

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Bytes from ``offset`` on; less than ``size`` only at the end of the object.

        Raises
        ------
        Stale
            The object changed, and these bytes were not here yet.
        BackendError
            The store failed; the next read tries again.
        """
        data = self.read_now(offset, size)
        if data is not None:
            return data
        await self._fill().join()
        end = min(offset + size, self.size)
        return await self._fill().read(offset, end, self._observe(offset, end))

    async def read_ranges(
        self, ranges: Sequence[tuple[int, int]], *, gap: int | None = None, lenient: bool = False
    ) -> list[bytes | memoryview | BaseException]:
        """Bytes of many ranges (start, end exclusive), fetched together; no read-ahead.

        Parameters
        ----------
        gap : int, optional
            Bytes between two ranges up to which one request for both is better; as measured (`Pace.gap`) unless given.
        lenient : bool
            A range that failed gives its error; else the first failure is raised.
        """
        clipped = [(min(start, self.size), min(end, self.size)) for start, end in ranges]
        file = self._local_file()
        if file is not None:
            try:
                return [file.read(start, end - start) if start < end else b"" for start, end in clipped]
            except Corrupt:
                self._renew()
        fill = self._fill()
        await fill.join()
        for start, end in joined(clipped, self.size, fill.pace.gap if gap is None else gap):
            fill.demand(start, end, GRAIN)
        found = [fill.local(start, end) if start < end else b"" for start, end in clipped]
        coming = [number for number, data in enumerate(found) if data is None]
        waits = [asyncio.ensure_future(fill.collect(*clipped[number])) for number in coming]
        try:
            arrived = await asyncio.gather(*waits, return_exceptions=lenient)
        except BaseException:  # cancelled, or one has failed: nobody waits for the others
            for wait in waits:
                wait.cancel()
            raise
        parts = dict(zip(coming, arrived, strict=True))
        return [parts[number] if data is None else data for number, data in enumerate(found)]

    async def wait_complete(self) -> None:
        """Fetch what is missing and return when the file is complete.

        Raises
        ------
        NoSpace
            The cache cannot hold the object.
        Stale, BackendError
            See `read`.
        """
        if self._local_file() is None:
            await self._fill().join()
            if self._local_file() is None:
                await self._fill().complete()

    # -- the end -----------------------------------------------------------------------------------------------------

    @property
    def alone(self) -> bool:
        """Nobody else waits for the rest of the file."""
        source = self._source
        return isinstance(source, Fill) and source.readers <= 1

    def close(self) -> None:
        """Let go; the last reader of an unfinished fill ends it. Never blocks on the network; may be called twice."""
        with _attaching:
            source, self._source = self._source, None
            self._file = None
            closed, self.closed = self.closed, True
        if source is not None:
            self._owner.release(source)
        elif not closed:
            self._owner.used(self.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _local_file(self) -> LocalFile | None:
        file = self._file
        if file is None:
            source = self.attach()
            if isinstance(source, Fill) and source.pid != os.getpid() and self._fetch is not None:
                # A forked child: the parent's requests and event loop are not here.
                self._source = source = self._owner.attach(self.key, self._fetch)
                self._ahead = ReadAhead(self.size)
            sealed = source.sealed if isinstance(source, Fill) else source
            if sealed is not None:
                self._file = file = sealed.file
        return file

    def _renew(self) -> None:
        """The encrypted file has been changed: it goes, and the object is fetched anew. Raises Corrupt if that cannot be."""
        self._owner.spoiled(self.key)
        source = self._source
        if self._fetch is None or source is None:
            raise Corrupt("its cache file has been changed, and is removed; open it again", self.key.label)
        self._file = None
        self._begin(self._owner.attach(self.key, self._fetch))
        self._owner.release(source)
        if self._local_file() is not None:  # somebody was faster
            raise Corrupt("its cache file was changed while it was read; read it again", self.key.label)

    def _begin(self, source: SealedFile | Fill) -> None:
        self._source = source
        if isinstance(source, SealedFile):
            self._file = source.file
        else:
            self._ahead = ReadAhead(self.size)

    def _fill(self) -> Fill:
        source = self._source
        assert isinstance(source, Fill)  # `_local_file` came first
        return source

    def _observe(self, start: int, end: int) -> Plan | None:
        return None if self._ahead is None else self._ahead.observe(start, end, self._fill().pace.width)
