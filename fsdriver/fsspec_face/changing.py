"""Changing names and attributes: mkdir, rm, mv, touch, and what tells versions apart."""

from __future__ import annotations

import datetime as dt
import hashlib
import posixpath
import time
from glob import has_magic
from typing import Any

from fsspec.asyn import _run_coros_in_chunks

from fsdriver.entry import Changes, Entry, Kind
from fsdriver.errors import AlreadyExists, DirectoryNotEmpty, IsDirectory, NotDirectory, NotFound
from fsdriver.fsspec_face.base import Face, from_any_loop, synchronous
from fsdriver.fsspec_face.targets import Target, join
from fsdriver.runtime import on_loop


class Changing(Face):
    """Part of `fsdriver.filesystem.TierFileSystem`."""

    # -- directories ---------------------------------------------------------------------------------------------------

    @from_any_loop
    async def _mkdir(self, path: str, create_parents: bool = True, exist_ok: bool = False, **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        target = self._namespace.target(path)
        if not target.name:
            if exist_ok:
                return
            raise AlreadyExists("is the root of a route", path)
        above = self._parent(path)
        if create_parents:
            await self._makedirs(above, exist_ok=True)
        elif not await self._isdir(above):
            raise NotFound("its parent directory does not exist; pass create_parents=True", path)
        await self._make_one(target, exist_ok)

    @from_any_loop
    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        if path in {"", self.root_marker}:
            return
        target = self._namespace.target(path)
        missing: list[Target] = []
        name = target.name
        while name:
            entry = await target.route.find_entry(name)
            if entry is not None:
                if entry.kind is not Kind.DIRECTORY and not await self._isdir(target.shown(name)):
                    raise NotDirectory("not a directory", target.shown(name))
                break
            missing.append(target.at(name))
            name = name.rpartition("/")[0]
        if not missing and not exist_ok:
            raise AlreadyExists("the directory exists; pass exist_ok=True", path)
        for one in reversed(missing):
            await self._make_one(one, exist_ok=exist_ok or one is not missing[0])

    async def _make_one(self, target: Target, exist_ok: bool) -> None:
        try:
            await target.route.mkdir(target.name)
        except AlreadyExists:
            if not exist_ok or not await self._isdir(target.path):
                raise

    @from_any_loop
    async def _rmdir(self, path: str) -> None:
        target = self._namespace.target(self._strip_protocol(path))
        if not target.name:
            raise DirectoryNotEmpty("is the root of a route, which stays", path)
        await target.route.rmdir(target.name)

    # -- removing ------------------------------------------------------------------------------------------------------

    @from_any_loop
    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        target, _ = await self._lstat(self._strip_protocol(path))
        await target.route.remove(target.name)

    @from_any_loop
    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        if maxdepth is not None:
            paths = await self._expand_path(path, recursive=recursive, maxdepth=maxdepth)
            for one in reversed(paths):
                await self._rm_one(one, recursive=False, partial=True)
            return
        for one in await self._expand_path(path, recursive=False):
            await self._rm_one(one, recursive=recursive, batch_size=batch_size)

    async def _rm_one(
        self, path: str, *, recursive: bool, batch_size: int | None = None, partial: bool = False
    ) -> None:
        """``partial``: of a tree cut off at a depth, so a directory that still has entries stays."""
        target, entry = await self._lstat(path)
        if entry.kind is not Kind.DIRECTORY:
            await target.route.remove(target.name)
        elif recursive:
            await on_loop()
            await self._rm_tree(target, batch_size or self.batch_size)
        elif not partial:
            raise IsDirectory("is a directory; pass recursive=True to remove it and all below", path)
        else:
            try:
                await target.route.rmdir(target.name)
            except (DirectoryNotEmpty, NotFound):
                return

    async def _rm_tree(self, target: Target, batch_size: int | None) -> None:
        entries = await target.route.list(target.name)
        below = {name: target.at(join(target.name, name)) for name in entries}
        files = [below[name] for name, entry in entries.items() if entry.kind is not Kind.DIRECTORY]
        for name, entry in entries.items():
            if entry.kind is Kind.DIRECTORY:
                await self._rm_tree(below[name], batch_size)
        await _run_coros_in_chunks([one.route.remove(one.name) for one in files], batch_size=batch_size, nofiles=True)
        if target.name:
            try:
                await target.route.rmdir(target.name)
            except NotFound:
                return  # a directory without marker goes with its last file

    # -- moving --------------------------------------------------------------------------------------------------------

    @from_any_loop
    async def _mv(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any
    ) -> None:
        """Rename where source and target share a route, else copy and remove; rules of the target as in ``cp``."""
        plain = isinstance(path1, str) and isinstance(path2, str) and maxdepth is None and not has_magic(path1)
        pair = await self._rename_pair(path1, path2, recursive) if plain else None
        if pair is None:
            await on_loop()
            await self._copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
            await self._rm(path1, recursive=recursive)
            return
        source, target = pair
        if source.name != target.name:
            await source.route.rename(source.name, target.name)

    @from_any_loop
    async def _mv_file(self, path1: str, path2: str) -> None:
        await self._mv(path1, path2)

    async def _rename_pair(self, path1: str, path2: str, recursive: bool) -> tuple[Target, Target] | None:
        """What to rename into what; None where only copying does what ``mv`` means."""
        into = path2.endswith("/") or await self._isdir(path2)
        source, entry = await self._lstat(self._strip_protocol(path1))
        if entry.kind is Kind.DIRECTORY and not recursive:
            raise IsDirectory("is a directory; pass recursive=True to move it", path1)
        destination = self._strip_protocol(path2)
        if into:
            if entry.kind is Kind.DIRECTORY and path1.endswith("/"):
                return None
            destination = join(destination, posixpath.basename(source.name))
        target = self._namespace.target(destination)
        return (source, target) if source.route is target.route and source.name and target.name else None

    # -- attributes ----------------------------------------------------------------------------------------------------

    @from_any_loop
    async def _touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        target = await self._writable(self._strip_protocol(path))
        if truncate:
            await target.route.publish(target.name, b"")
            return
        if await target.route.find_entry(target.name) is None:
            await target.route.publish(target.name, b"")
            return
        now = time.time_ns()
        await target.route.set_attributes(target.name, Changes(atime_ns=now, mtime_ns=now))

    @from_any_loop
    async def _created(self, path: str) -> dt.datetime:
        """When the attributes last changed: stores do not keep the time of creation."""
        return _datetime((await self._located(self._strip_protocol(path)))[1].ctime_ns)

    @from_any_loop
    async def _modified(self, path: str) -> dt.datetime:
        return _datetime((await self._located(self._strip_protocol(path)))[1].mtime_ns)

    @from_any_loop
    async def _ukey(self, path: str) -> str:
        """Digest that changes with the content; attributes alone do not change it."""
        path = self._strip_protocol(path)
        _, entry = await self._located(path)
        return hashlib.sha256(f"{path}|{_version(entry)}".encode(errors="surrogateescape")).hexdigest()

    @from_any_loop
    async def _checksum(self, path: str) -> int:
        """A number that changes with the content."""
        return int((await self._ukey(path))[:16], 16)

    @from_any_loop
    async def _sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """A URL that reads the file without credentials for ``expiration`` seconds."""
        path = self._strip_protocol(path)
        target, entry = await self._located(path)
        if entry.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        await on_loop()
        if entry.staging is not None:
            await target.route.sync(target.name)
        return await target.route.backend.sign(entry.key or target.route.key(target.name), int(expiration))

    mkdir = synchronous(_mkdir)
    makedirs = synchronous(_makedirs)
    rmdir = synchronous(_rmdir)
    rm_file = synchronous(_rm_file)
    rm = synchronous(_rm)
    mv = synchronous(_mv)
    mv_file = synchronous(_mv_file)
    touch = synchronous(_touch)
    created = synchronous(_created)
    modified = synchronous(_modified)
    ukey = synchronous(_ukey)
    checksum = synchronous(_checksum)
    sign = synchronous(_sign)


def _datetime(nanoseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, tz=dt.UTC)


def _version(entry: Entry) -> str:
    return entry.version or f"{entry.size}|{entry.mtime_ns}|{entry.staging}"
