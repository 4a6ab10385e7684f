"""``file://``: a directory as a store. Objects are plain files, ``dir/`` keys are real directories.

A put writes a file under a temporary name in the same directory and renames it. Conditions are exact among the
processes of this driver, which lock the directory (flock) around compare-and-rename; a new name is made with link(2),
which no other program can race either. The version is size, mtime and inode: two writes in place within one tick of the
clock look alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsdriver.backends.base import ABSENT, Backend, Capabilities, ObjectInfo, Page, Source
from fsdriver.backends.local_attributes import (
    apply_metadata,
    has_xattrs,
    info_of,
    read_metadata,
    to_error,
    version_of,
)
from fsdriver.backends.local_files import Buffered, Writing, begin, discard, link
from fsdriver.backends.local_tree import LocalTree
from fsdriver.backends.source import check_settled
from fsdriver.errors import AccessDenied, IsDirectory, NotFound, Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fsdriver.backends.retry import RetryPolicy

T = TypeVar("T")

log = logging.getLogger(__name__)

PAGE_SIZE: Final = 1000
THREADS: Final = 8


class LocalBackend(Backend):
    """Files below one directory.

    Parameters
    ----------
    root : str
        Absolute path; keys below it are absolute paths without the leading ``/``, so that two backends with
        different roots agree on the key of a file.
    retry : RetryPolicy
    fsync : bool
        A put returns when the bytes survive a power loss.

    Attributes
    ----------
    moving : Buffered
        How bytes get into files and out of them.
    """

    scheme = "file"

    capabilities = Capabilities(
        conditional_put=True,
        conditional_delete=True,
        server_copy=True,
        metadata=True,
        list_metadata=True,
        directories=True,
        strong_versions=False,
        segment_limit=255,
    )

    def __init__(self, root: str, retry: RetryPolicy, *, fsync: bool = True) -> None:
        super().__init__(self.scheme, "", "", retry)
        self.moving = Buffered()
        self.tree = LocalTree(root)
        self._fsync = fsync
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="fsdriver-local")
        self._pid = os.getpid()
        self._told: set[str] = set()
        self._swept: set[str] = set()
        if os.path.isdir(root) and not has_xattrs(root):
            self.tree.xattrs = False
            self.capabilities = replace(self.capabilities, metadata=False)
            log.warning("%s: no extended attributes here; metadata other than mode, owner and time is not kept", root)

    async def close(self) -> None:
        await super().close()
        self._executor.shutdown(wait=False)

    async def _run(self, key: str, function: Callable[..., T], *arguments: Any) -> T:
        if os.getpid() != self._pid:
            # Threads do not survive a fork; everything else of this class does.
            self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="fsdriver-local")
            self._pid = os.getpid()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        except OSError as error:
            raise to_error(error, key) from error

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _check(self, prefix: str) -> None:
        await self._run(prefix, self._read_check)

    def _read_check(self) -> None:
        with self.tree.directory(self.tree.root):
            pass

    async def _head(self, key: str) -> ObjectInfo:
        return await self._run(key, self.tree.describe, key)

    async def _get(self, key: str, start: int, end: int | None, version: str | None) -> memoryview:
        return await self._run(key, self._read, key, start, end, version)

    def _read(self, key: str, start: int, end: int | None, version: str | None) -> memoryview:
        descriptor = self.tree.open_file(key)
        try:
            before = os.fstat(descriptor)
            if version is not None and version_of(before) != version:
                raise Stale("the file was changed by someone else meanwhile; read it again", key)
            stop = before.st_size if end is None else min(end, before.st_size)
            view = self.moving.read(descriptor, start, stop, key)
            if version is not None and version_of(os.fstat(descriptor)) != version:
                raise Stale("the file was changed while it was read; read it again", key)
            return view
        finally:
            os.close(descriptor)

    async def _list_page(self, prefix: str, delimiter: bool, start_after: str, token: Any) -> tuple[Page, Any]:
        entries = token
        if entries is None:
            await self._run(prefix, self.tree.real_root)
            entries = self._walk(prefix, delimiter, start_after)
        found = await self._run(prefix, lambda: list(itertools.islice(entries, PAGE_SIZE)))
        page = Page(
            [one for one in found if isinstance(one, ObjectInfo)], [one for one in found if isinstance(one, str)]
        )
        return page, entries if len(found) == PAGE_SIZE else None

    def _walk(self, prefix: str, delimiter: bool, start_after: str) -> Iterator[ObjectInfo | str]:
        """Objects, and with ``delimiter`` prefixes as texts, in key order."""
        root = self.tree.root.strip("/")
        base = f"{root}/" if root else ""
        if not prefix.startswith(base):
            if not base.startswith(prefix):
                return
            if delimiter:
                yield prefix + base[len(prefix) :].partition("/")[0] + "/"
                return
            prefix = base
        directory, _, beginning = prefix.rpartition("/")
        if not beginning and directory and f"{directory}/" > start_after:
            with contextlib.suppress(NotFound):
                yield self.tree.describe(f"{directory}/")
        yield from self._below(directory, beginning, delimiter, start_after)

    def _below(self, directory: str, beginning: str, delimiter: bool, start_after: str) -> Iterator[ObjectInfo | str]:
        path, base = f"/{directory}", f"{directory}/" if directory else ""
        names = [one for one in self.tree.names(path) if one[0].startswith(beginning)]
        for chunk_start in range(0, len(names), PAGE_SIZE):
            chunk = names[chunk_start : chunk_start + PAGE_SIZE]
            try:
                with self.tree.directory(path) as parent:
                    infos = [None if is_dir else self._entry(base + name, name, parent) for name, is_dir in chunk]
            except NotFound:
                return
            for (name, is_dir), info in zip(chunk, infos, strict=True):
                key = f"{base}{name}/" if is_dir else base + name
                if key <= start_after and not (is_dir and start_after.startswith(key)):
                    continue
                if is_dir and delimiter:
                    yield key
                elif is_dir:
                    if key > start_after:
                        with contextlib.suppress(NotFound):
                            yield self.tree.describe(key)
                    yield from self._below(base + name, "", delimiter, start_after)
                elif info is not None and not info.key.endswith("/"):
                    yield info

    def _entry(self, key: str, name: str, parent: int) -> ObjectInfo | None:
        try:
            info = self.tree.entry(key, name, parent)
        except FileNotFoundError:
            return None  # removed since the directory was read
        self.counters.hidden += info is None
        return info

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
        content_type: str | None,
    ) -> ObjectInfo:
        writing = Writing()
        work = asyncio.ensure_future(self._run(key, self._write, key, source, metadata or {}, if_version, writing))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if not writing.cancel():
                # It is getting its name: what follows must not overtake that.
                await asyncio.wait([work])
            work.add_done_callback(_forget_outcome)
            raise

    def stops_when_cancelled(self, size: int) -> bool:
        return True

    def _write(
        self, key: str, source: Source, metadata: Mapping[str, str], if_version: str | None, writing: Writing
    ) -> ObjectInfo:
        path = self.tree.path_of(key)
        if key.endswith("/"):
            return self._make_directory(key, path, metadata, if_version)
        if path == self.tree.root:
            raise IsDirectory("the key is the backend's root directory", key)
        with self.tree.directory(os.path.dirname(path), make=True) as parent:
            self._sweep_once(os.path.dirname(path), parent)
            temporary, descriptor = begin(parent)
            try:
                self.moving.fill(descriptor, source, writing)
                self._set_attributes(descriptor, key, metadata)
                if self._fsync:
                    os.fsync(descriptor)
                    self.moving.synced(descriptor)
                check_settled(source)
                writing.publish()
                self._publish(key, temporary, os.path.basename(path), parent, if_version)
                return info_of(key, os.fstat(descriptor), None, read_metadata(descriptor) if self.tree.xattrs else {})
            except BaseException:  # an interrupt leaves no unfinished file either
                discard(temporary, parent)
                raise
            finally:
                os.close(descriptor)

    def _sweep_once(self, directory: str, descriptor: int) -> None:
        """Remove the unfinished files that processes which died left where this one writes for the first time."""
        if directory not in self._swept:
            self._swept.add(directory)
            self.tree.sweep(descriptor)

    def _set_attributes(self, descriptor: int, key: str, metadata: Mapping[str, str]) -> None:
        lost = apply_metadata(descriptor, metadata, self.tree.xattrs)
        for name in lost:
            if name not in self._told:
                self._told.add(name)
                log.warning("%s: %s cannot be kept on this file system", key, name)

    def _publish(self, key: str, temporary: str, name: str, parent: int, if_version: str | None) -> None:
        """Give a finished file its name, if the condition holds."""
        fcntl.flock(parent, fcntl.LOCK_EX)  # until the caller closes it
        self._demand(key, name, parent, if_version)
        if if_version != ABSENT or not link(temporary, name, parent, key):
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        if self._fsync:
            os.fsync(parent)

    def _demand(self, key: str, name: str, parent: int, if_version: str | None) -> None:
        if if_version is None:
            return
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if if_version == ABSENT:
                return
            raise Stale("the file was removed by someone else meanwhile; read it again", key) from None
        if if_version == ABSENT:
            raise Stale("the file exists already", key)
        if version_of(status) != if_version:
            raise Stale("the file was changed by someone else meanwhile; read it again", key)

    def _make_directory(self, key: str, path: str, metadata: Mapping[str, str], if_version: str | None) -> ObjectInfo:
        if if_version == ABSENT and os.path.isdir(path):
            raise Stale("the directory exists already", key)
        with self.tree.directory(path, make=True) as descriptor:
            self._set_attributes(descriptor, key, metadata)
        return self.tree.describe(key)

    async def _delete(self, key: str, if_version: str | None) -> None:
        await self._run(key, self._remove, key, if_version)

    def _remove(self, key: str, if_version: str | None) -> None:
        path = self.tree.path_of(key)
        if path == self.tree.root:
            raise AccessDenied("the backend's root directory is not removed", key)
        name = os.path.basename(path)
        self.tree.real_root()
        with contextlib.suppress(FileNotFoundError), self.tree.directory(os.path.dirname(path), lock=True) as parent:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) != key.endswith("/"):
                return
            self._demand(key, name, parent, if_version)
            if not key.endswith("/"):
                os.unlink(name, dir_fd=parent)
                return
            with self.tree.directory(path) as descriptor:
                self.tree.sweep(descriptor)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                # The marker of a directory in use is implied by its keys, as on a bucket.
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise

    async def _copy(
        self,
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
        size: int | None,
    ) -> ObjectInfo:
        return await self._run(target, self._duplicate, source, target, source_version, if_version, metadata)

    def _duplicate(
        self,
        source: str,
        target: str,
        source_version: str | None,
        if_version: str | None,
        metadata: Mapping[str, str] | None,
    ) -> ObjectInfo:
        original = self.tree.describe(source)
        if source_version is not None and original.version != source_version:
            raise Stale("the source of the copy was changed by someone else meanwhile; read it again", source)
        kept = dict(original.metadata or {}) if metadata is None else metadata
        if source.endswith("/"):
            return self._write(
                target, b"", {name: kept[name] for name in kept if name != "fsdriver-kind"}, if_version, Writing()
            )
        descriptor = self.tree.open_file(source)
        try:
            return self._write(target, Path(f"/proc/self/fd/{descriptor}"), kept, if_version, Writing())
        finally:
            os.close(descriptor)


def _forget_outcome(work: asyncio.Future[ObjectInfo]) -> None:
    """Nobody waits for it any more."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.debug("a write that was cancelled ended: %r", error)
