"""What the parts of `fsdriver.filesystem` share: attributes in fsspec's words, symbolic links, the event loop."""

from __future__ import annotations

import asyncio
import functools
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from fsspec.asyn import AsyncFileSystem, get_loop

from fsdriver import runtime
from fsdriver.entry import Entry, Kind
from fsdriver.errors import NotFound, TooManyLinks
from fsdriver.fsspec_face.targets import Namespace, Target, join, parent
from fsdriver.routes.route import Route

R = TypeVar("R")
M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])

MAX_LINKS: Final = 40
"""Symbolic links followed in one path, as in Linux."""
FSSPEC_TYPES: Final[Mapping[Kind, str]] = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "link",
}


def from_any_loop(method: M) -> M:
    """Let a coroutine of the driver be awaited on fsspec's loop, on a foreign one, and driven by `runtime.run`."""

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is None or running is get_loop():
            return await method(*args, **kwargs)
        return await runtime.bridge(method(*args, **kwargs))

    return cast("M", call)


def synchronous(method: Callable[..., Coroutine[Any, Any, R]]) -> Callable[..., R]:
    """The blocking form of a coroutine: a warm hit is served in the calling thread."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> R:
        return runtime.run(method(*args, **kwargs))

    call.__name__ = method.__name__.removeprefix("_")
    return call


class Face(AsyncFileSystem):
    """Paths to entries; base of the parts of `TierFileSystem`."""

    _namespace: Namespace

    def describe(self, path: str, entry: Entry, followed: Entry | None = None) -> dict[str, Any]:
        """Attributes of an entry in fsspec's words.

        Parameters
        ----------
        path : str
            Shown as ``name``.
        followed : Entry, optional
            What a symbolic link leads to: a link to a file shows as that file, as in fsspec's local filesystem; a link
            to a directory, or to nothing, as ``"link"``, so that no walk goes round in circles.

        Returns
        -------
        dict
            ``name``, ``size`` (bytes), ``type``, ``mode`` (with type bits), ``uid``, ``gid``, ``mtime``,
            ``created`` (seconds since the epoch), ``ino``, ``nlink``, ``islink``; ``destination`` of a link, ``ETag``
            of a file that is in the store.
        """
        shown = followed if followed is not None and followed.kind is Kind.FILE else entry
        info: dict[str, Any] = {
            "name": path,
            "size": 0 if shown.kind is Kind.DIRECTORY else shown.size,
            "type": FSSPEC_TYPES.get(shown.kind, "other"),
            "created": shown.ctime_ns / 1e9,
            "islink": entry.kind is Kind.SYMLINK,
            "mode": shown.st_mode,
            "uid": shown.uid,
            "gid": shown.gid,
            "mtime": shown.mtime_ns / 1e9,
            "ino": shown.ino,
            "nlink": shown.nlink,
        }
        if entry.kind is Kind.SYMLINK:
            info["destination"] = entry.target
        if shown.kind is Kind.FILE and shown.version is not None:
            info["ETag"] = shown.version
        return info

    def describe_above(self, path: str) -> dict[str, Any]:
        """Attributes of a directory that exists because routes hang below it."""
        return {"name": path, "size": 0, "type": "directory", "islink": False, "mode": stat.S_IFDIR | 0o755}

    async def _located(self, path: str) -> tuple[Target, Entry]:
        """Route, name and entry of a path, all symbolic links followed.

        Raises
        ------
        NotFound, TooManyLinks
        """
        target = self._namespace.target(path)
        for _ in range(MAX_LINKS):
            try:
                entry = await target.route.stat(target.name)
            except NotFound:
                behind = await self._behind_linked_directory(target)
                if behind is None:
                    raise
                target = behind
                continue
            if entry.kind is not Kind.SYMLINK:
                return target, entry
            target = target.at(_link_target(target, target.name, entry.target))
        raise TooManyLinks("more than 40 symbolic links; they may lead in a circle", path)

    async def _expect(self, paths: Iterable[str]) -> None:
        """These files are about to be opened: many names of one directory that are not known are one listing."""
        unknown: Counter[tuple[Route, str]] = Counter()
        for path in paths:
            target = self._namespace.target(path)
            if target.name and target.route.cached(target.name) is None:
                unknown[target.route, parent(target.name)] += 1
        for (route, directory), count in unknown.items():
            await route.expect(directory, count)

    async def _lstat(self, path: str) -> tuple[Target, Entry]:
        """As `_located`, but a link at the end of the path is not followed."""
        target = self._namespace.target(path)
        for _ in range(MAX_LINKS):
            try:
                return target, await target.route.stat(target.name)
            except NotFound:
                behind = await self._behind_linked_directory(target)
                if behind is None:
                    raise
                target = behind
        raise TooManyLinks("more than 40 symbolic links; they may lead in a circle", path)

    async def _behind_linked_directory(self, target: Target) -> Target | None:
        """Where a missing name lies if a directory above it is a symbolic link."""
        above, rest = parent(target.name), posixpath.basename(target.name)
        while above:
            try:
                entry = await target.route.stat(above)
            except NotFound:
                above, rest = parent(above), f"{posixpath.basename(above)}/{rest}"
                continue
            if entry.kind is not Kind.SYMLINK:
                return None
            return target.at(join(_link_target(target, above, entry.target), rest))
        return None

    async def _writable(self, path: str) -> Target:
        """Where a write to a path goes: a symbolic link that is known is written through."""
        target = self._namespace.target(path)
        known = target.route.cached(target.name)
        if known is not None and known.kind is Kind.SYMLINK:
            target = (await self._located(path))[0]
        return target


def _link_target(target: Target, name: str, destination: str) -> str:
    """Name within the route that a symbolic link leads to."""
    if destination.startswith("/"):
        raise NotFound(f"the symbolic link leads to {destination!r}: absolute only in a mount", target.path)
    found = posixpath.normpath(posixpath.join(parent(name), destination))
    if found == ".." or found.startswith("../"):
        raise NotFound(f"the symbolic link leads to {destination!r}, out of its route", target.path)
    return "" if found == "." else found
