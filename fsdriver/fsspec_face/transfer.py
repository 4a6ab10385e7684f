"""Bytes in and out: cat, ranges, pipe, put, get, cp."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from fsspec.asyn import AsyncFileSystem, _run_coros_in_chunks
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import isfilelike

from fsdriver import runtime
from fsdriver.backends import ABSENT
from fsdriver.cache import Reader
from fsdriver.entry import Entry, Kind
from fsdriver.errors import IsDirectory, NotFound, Stale
from fsdriver.fsspec_face.base import Face, from_any_loop, synchronous
from fsdriver.fsspec_face.copying import copy_within
from fsdriver.fsspec_face.targets import Target
from fsdriver.routes.reading import AnyReader
from fsdriver.runtime import on_loop, on_worker

T = TypeVar("T")
Range: TypeAlias = tuple[int | None, int | None]
"""Start and end as in a slice."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Ranges that are fetched together: ``gap`` and ``lenient`` as in `Reader.read_ranges`."""

    gap: int | None
    lenient: bool


CHUNK: Final = 8 << 20
"""Bytes copied between two reports of progress."""
BESIDE_A_WRITER: Final = 4
"""Further attempts at one version of an object that is replaced again and again meanwhile."""
NO_COPY_RANGE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})
"""copy_file_range(2) does not work between these two files: read and write instead."""


class Transfer(Face):
    """Part of `fsdriver.filesystem.TierFileSystem`."""

    async def _reader(self, path: str) -> tuple[Target, Entry, AnyReader]:
        """An open reader of a file; the caller closes it."""
        target, entry = await self._located(path)
        return target, entry, await self._open_located(path, target, entry)

    async def _open_located(self, path: str, target: Target, entry: Entry) -> AnyReader:
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        return await target.route.open(target.name, entry)

    async def _with_fresh_version(self, path: str) -> None:
        target, _ = await self._located(path)
        await target.route.stat(target.name, fresh=True)

    def _at_hand(self, path: str) -> bytes | None:
        """All bytes of a small file whose attributes are fresh and whose bytes are here: no coroutine is needed."""
        target = self._namespace.target(path)
        entry = target.route.cached(target.name)
        return None if entry is None else target.route.at_hand(target.name, entry)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive; negative: from the end) of a file."""
        data = self._at_hand(self._strip_protocol(path))
        if data is not None:
            return data[start:end]
        return runtime.run(self._cat_file(path, start, end, **kwargs))

    @from_any_loop
    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return (await self._slices(self._strip_protocol(path), [(start, end)]))[0]  # type: ignore[no-any-return]

    async def _slices(self, path: str, ranges: Sequence[Range], batch: Batch | None = None) -> list[Any]:
        """Slices of one version of one file, the present one also beside a writer; without ``batch``, one slice."""
        for _ in range(BESIDE_A_WRITER):
            try:
                found = await self._ranges(path, ranges, batch)
            except Stale:
                await self._with_fresh_version(path)
                continue
            if not any(isinstance(one, Stale) for one in found):
                return found
            await self._with_fresh_version(path)
        return await self._ranges(path, ranges, batch)

    async def _ranges(self, path: str, ranges: Sequence[Range], batch: Batch | None) -> list[Any]:
        """Slices of the version that is known; those that failed as their errors if it is lenient."""
        target, entry = await self._located(path)
        whole = target.route.at_hand(target.name, entry)
        if whole is not None:
            return [whole[start:end] for start, end in ranges]
        with await self._open_located(path, target, entry) as reader:
            spans = [slice(start, end).indices(reader.size)[:2] for start, end in ranges]
            parts = _read_now(reader, spans)
            if None in parts and isinstance(reader, Reader) and reader.small and await on_worker():
                reader.fetch_here()
                parts = _read_now(reader, spans)
            missing = [number for number, part in enumerate(parts) if part is None]
            if missing and batch is None:
                start, stop = spans[missing[0]]
                parts[missing[0]] = await reader.read(start, stop - start)
            elif missing and batch is not None and isinstance(reader, Reader):
                wanted = [spans[number] for number in missing]
                fetched = await reader.read_ranges(wanted, gap=batch.gap, lenient=batch.lenient)
                for number, data in zip(missing, fetched, strict=True):
                    parts[number] = data
            parts = [part if isinstance(part, BaseException) else bytes(part) for part in parts]
            for data in parts:
                if isinstance(data, bytes) and len(data) == reader.size:
                    target.route.remember(reader, data)
                    break
            return parts

    @from_any_loop
    async def _cat_ranges(
        self,
        paths: list[str],
        starts: int | Iterable[int | None] | None,
        ends: int | Iterable[int | None] | None,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Many ranges of many files, in the order given, planned together.

        Ranges of one file that overlap, or lie near each other, are one request, and none of their bytes are fetched
        twice; names that are not known yet come in listings of their directories. What is here already is read in the
        calling thread.

        Parameters
        ----------
        paths : list of str
        starts, ends : int or iterable of int
            Of each range, as in `cat_file`; one for all, or one for each of ``paths``.
        max_gap : int, optional
            Bytes between two ranges up to which they are fetched in one request; by default as many as come in the time
            that one more request takes, as measured of the store.
        batch_size : int, optional
            Files at a time.
        on_error : {"return", "raise"}
            A range that failed gives its error; or the first failure ends the others and is raised.
        """
        if not isinstance(paths, list):
            raise TypeError(f"paths must be a list, not {type(paths).__name__}")
        first = list(starts) if isinstance(starts, Iterable) else [starts] * len(paths)
        last = list(ends) if isinstance(ends, Iterable) else [ends] * len(paths)
        if not len(first) == len(last) == len(paths):
            raise ValueError(f"{len(paths)} paths, {len(first)} starts and {len(last)} ends: their numbers must agree")
        groups: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            groups.setdefault(self._strip_protocol(path), []).append(number)
        out: list[Any] = [None] * len(paths)
        batch = Batch(max_gap, lenient=on_error == "return")

        async def one(path: str, numbers: list[int]) -> None:
            try:
                ranges = [(first[n], last[n]) for n in numbers]
                parts: Sequence[Any] = await self._slices(path, ranges, batch)
            except Exception as error:
                if not batch.lenient:
                    raise
                parts = [error] * len(numbers)
            for number, part in zip(numbers, parts, strict=True):
                out[number] = part

        cold: dict[str, list[int]] = {}
        for path, numbers in groups.items():
            if self._needs_no_loop(path):
                await one(path, numbers)
            else:
                cold[path] = numbers
        if len(cold) == 1:
            await one(*cold.popitem())
        elif cold:
            await self._expect(cold)
            await on_loop()
            size = batch_size or self.batch_size
            await _run_coros_in_chunks([one(*group) for group in cold.items()], batch_size=size, nofiles=True)
        return out

    def _needs_no_loop(self, path: str) -> bool:
        """A file whose entry is remembered and whose bytes are on the local disk, or a path that lies nowhere."""
        try:
            target = self._namespace.target(path)
        except NotFound:
            return True
        entry = target.route.cached(target.name)
        if entry is None or entry.kind is not Kind.FILE:
            return False
        route = target.route
        return entry.staging is not None or route.services.cache.contains(route.content_key(target.name, entry))

    @from_any_loop
    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        target = await self._writable(self._strip_protocol(path))
        await target.route.publish(target.name, bytes(value), base=ABSENT if mode == "create" else None)

    @from_any_loop
    async def _put_file(
        self, lpath: str, rpath: str, mode: str = "overwrite", callback: Callback = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)
        await on_loop()
        if await _blocking(os.path.isdir, lpath):
            await self._makedirs(rpath, exist_ok=True)
            return
        target = await self._writable(rpath)
        staging = target.route.services.staging
        staged = staging.new(None)
        try:
            source = await _blocking(os.open, lpath, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(source).st_size
                callback.set_size(size)
                await copy_bytes(source, staged.descriptor, size, callback)
            finally:
                os.close(source)
            staging.release(staged)
            await target.route.publish(target.name, staged.path, base=ABSENT if mode == "create" else None)
        finally:
            staging.release(staged)
            staging.remove(staged.path)

    @from_any_loop
    async def _get_file(
        self, rpath: str, lpath: Any, callback: Callback = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)
        await on_loop()
        if not isfilelike(lpath) and await self._isdir(rpath):
            await _blocking(partial(os.makedirs, lpath, exist_ok=True))
            return
        _, _, reader = await self._reader(rpath)
        with reader:
            callback.set_size(reader.size)
            if isfilelike(lpath):
                await _stream(reader, lpath.write, callback)
                return
            file = await _blocking(_create, lpath)
            try:
                with file:
                    descriptor = reader.fileno()
                    if descriptor is not None:
                        await copy_bytes(descriptor, file.fileno(), reader.size, callback)
                    else:
                        await _stream(reader, file.write, callback)
            except BaseException:  # a cancelled transfer leaves no half of a file either
                await _blocking(partial(Path(lpath).unlink, missing_ok=True))
                raise

    @from_any_loop
    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        source, entry = await self._located(path1)
        if entry.kind is Kind.DIRECTORY:
            await self._makedirs(path2, exist_ok=True)
            return
        target = await self._writable(path2)
        if source.route is target.route:
            if source.name != target.name:
                await copy_within(source.route, source.name, target.name)
            return
        local: Path = await source.route.materialize(source.name, entry)
        try:
            await target.route.publish(target.name, local)
        finally:
            target.route.services.staging.remove(local)

    @from_any_loop
    async def _copy(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        on_error: str | None = None,
        maxdepth: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Fsspec's rules of who goes where; directories are made first, parents before children, then files at once."""
        await on_loop()
        plan = _CopyPlan(self)
        await AsyncFileSystem._copy(plan, path1, path2, recursive, None, maxdepth, batch_size)  # noqa: SLF001
        lenient = on_error == "ignore" or (on_error is None and recursive)
        ignored: tuple[type[OSError], ...] = (NotFound,) if lenient else ()
        files = []
        for pair in plan.pairs:
            if await self._isdir(pair[0]):
                await self._cp_file(*pair)
            else:
                files.append(pair)
        size = batch_size or self.batch_size
        copies = [self._cp_file(*pair) for pair in files]
        for result in await _run_coros_in_chunks(copies, batch_size=size, return_exceptions=True, nofiles=True):
            if isinstance(result, BaseException) and not isinstance(result, ignored):
                raise result

    cat_ranges = synchronous(_cat_ranges)
    pipe_file = synchronous(_pipe_file)
    put_file = synchronous(_put_file)
    get_file = synchronous(_get_file)
    cp_file = synchronous(_cp_file)


def _read_now(reader: AnyReader, spans: Sequence[tuple[int, int]]) -> list[Any]:
    return [reader.read_now(start, max(0, stop - start)) for start, stop in spans]


class _CopyPlan:
    """Stands in for the filesystem while fsspec works out which path is copied to which."""

    def __init__(self, fs: Transfer) -> None:
        self._fs = fs
        self.pairs: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    async def _cp_file(self, path1: str, path2: str) -> None:
        self.pairs.append((path1, path2))


async def _blocking(function: Callable[..., T], *args: Any) -> T:
    """Result of a call that may wait for the local disk."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _create(path: str) -> io.FileIO:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return io.FileIO(path, "wb")


async def copy_bytes(source: int, target: int, size: int, callback: Callback) -> None:
    """Copy an open local file into another, sharing blocks where the file system can (reflink)."""
    offset = 0
    while offset < size:
        done = await _blocking(_copy_chunk, source, target, offset, min(CHUNK, size - offset))
        if done == 0:
            break
        offset += done
        callback.relative_update(done)


def _copy_chunk(source: int, target: int, offset: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in NO_COPY_RANGE:
            raise
    data = memoryview(os.pread(source, count, offset))
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], offset + written)
    return written


async def _stream(reader: AnyReader, write: Any, callback: Callback) -> None:
    for offset in range(0, reader.size, CHUNK):
        data = await reader.read(offset, min(CHUNK, reader.size - offset))
        await _blocking(write, data)
        callback.relative_update(len(data))
