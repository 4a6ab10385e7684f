"""What the commands on the cache are given: a path in a mount, whose daemon is asked, or a URL, which this process opens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fsdriver.cli.mounts import locate
from fsdriver.errors import ConfigError, IsDirectory, NotFound

if TYPE_CHECKING:
    from fsdriver.engine import Engine
    from fsdriver.entry import Entry
    from fsdriver.routes.route import Route

T = TypeVar("T")

BATCH: Final = 1000
"""Paths of one request to a daemon."""
TREE: Final = "tier"


class Place(Protocol):
    """A file or directory of a tree. Paths are those of the tree."""

    name: str

    def files(self, *, recursive: bool) -> Iterator[tuple[str, int]]:
        """The file, or those of the directory, with their bytes; raises IsDirectory without ``recursive``."""
        ...

    def warm(self, path: str) -> Future[int]:
        """Begin to fetch a file into the cache; the bytes fetched. Nothing need wait for it at the end of the process."""
        ...

    def verify(self, path: str, *, everything: bool, repair: bool) -> Future[Mapping[str, Any]]:
        """Begin to compare a file through all tiers; fields of `fsdriver.routes.verifying.Verified`."""
        ...

    def move(self, path: str, tier: str, *, keep: bool, pin: bool) -> Future[Mapping[str, Any]]:
        """Begin to move a file to a tier; the answer is `fsdriver.routes.tiering.explain`'s."""
        ...

    def explain(self, path: str) -> Mapping[str, Any]:
        """What is known of a file; see `fsdriver.routes.tiering.explain`."""
        ...

    def sweep(self, *, dry_run: bool) -> Mapping[str, Any]:
        """Have the rules look at the whole tree; see `fsdriver.routes.tiering.sweep`."""
        ...

    def evict(self) -> Mapping[str, int]:
        """Fields of `fsdriver.routes.caching.Eviction`."""
        ...

    def set_pins(self, paths: Iterable[str], *, pinned: bool) -> int:
        """Pin or unpin files; how many."""
        ...

    def capacity(self) -> int:
        """Bytes that the cache may hold."""
        ...


@contextmanager
def opened(texts: Sequence[str], options: Mapping[str, str]) -> Iterator[Sequence[Place]]:
    """The places that a command's arguments name; engines opened for them are closed at the end.

    Raises
    ------
    NotFound
        A path is in no mount, or does not exist.
    ConfigError
        A URL, or an option of it, is wrong.
    """
    places: list[Place] = []
    try:
        for text in texts:
            places.append(_open(text, options))  # noqa: PERF401 - those opened before one fails are closed
        yield places
    finally:
        for engine in {place.engine for place in places if isinstance(place, UrlPlace)}:
            engine.close()


def _open(text: str, options: Mapping[str, str]) -> Place:
    url = text.removeprefix("tier::")
    if "://" in url:
        return UrlPlace(url, options)
    if options:
        raise ConfigError("-o is for URLs; this is a path", text)
    return MountedPlace(Path(text))


class MountedPlace:
    """In a mount: its daemon does the work, and so knows of it."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        # Links are followed here: the daemon takes paths as they are.
        self._path = Path(os.path.realpath(path))
        self._point, self._inside = locate(self._path)
        os.stat(self._path)

    def files(self, *, recursive: bool) -> Iterator[tuple[str, int]]:
        if not self._path.is_dir():
            yield self._inside, self._path.stat().st_size
        elif recursive:
            yield from self._below(str(self._path), self._inside.rstrip("/"))
        else:
            raise IsDirectory("is a directory; --recursive takes the files in it", self.name)

    def _below(self, directory: str, inside: str) -> Iterator[tuple[str, int]]:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{inside}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(entry.path, path)
            elif entry.is_file(follow_symlinks=False):
                yield path, entry.stat(follow_symlinks=False).st_size

    def warm(self, path: str) -> Future[int]:
        return _in_thread(lambda: int(self._ask("warm", path=path)["fetched"]))

    def verify(self, path: str, *, everything: bool, repair: bool) -> Future[Mapping[str, Any]]:
        return _in_thread(lambda: self._ask("verify", path=path, bytes=everything, repair=repair))

    def move(self, path: str, tier: str, *, keep: bool, pin: bool) -> Future[Mapping[str, Any]]:
        return _in_thread(lambda: self._ask("move", path=path, tier=tier, keep=keep, pin=pin))

    def explain(self, path: str) -> Mapping[str, Any]:
        return self._ask("explain", path=path)

    def sweep(self, *, dry_run: bool) -> Mapping[str, Any]:
        return self._ask("sweep", dry_run=dry_run)

    def evict(self) -> Mapping[str, int]:
        return self._ask("evict", path=self._inside)

    def set_pins(self, paths: Iterable[str], *, pinned: bool) -> int:
        count, rest = 0, iter(paths)
        while batch := list(islice(rest, BATCH)):
            count += self._ask("pin" if pinned else "unpin", paths=batch)["files"]
        return count

    def capacity(self) -> int:
        return int(self._ask("status")["cache"]["size"])

    def _ask(self, command: str, **fields: Any) -> dict[str, Any]:
        from fsdriver.fuse_mount.control import request

        return request(self._point, command, **fields)


def _in_thread(ask: Callable[[], T]) -> Future[T]:
    """What the daemon has begun it ends; the command, when it is interrupted, does not wait for that."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            answer = ask()
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
            done.set_exception(error)
        else:
            done.set_result(answer)

    done.set_running_or_notify_cancel()
    threading.Thread(target=run, name="fsdriver-asks", daemon=True).start()
    return done


class UrlPlace:
    """Of a store or of the configured tree, in this process; what it does to the shared cache holds for all."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        from fsdriver.config import from_url, load
        from fsdriver.engine import open_engine
        from fsdriver.fsspec_face.targets import split_container

        self.name = url
        scheme, _, rest = url.partition("://")
        if scheme == TREE:
            if options:
                raise ConfigError("-o is for URLs of stores; the tree is as it is configured", url)
            config, path = load(), rest
        else:
            whole = scheme not in {"http", "https"}
            container, path = split_container(scheme, rest if whole else url)
            # Nothing may be written at the root of somebody's container, nor are there attributes to be read.
            config = from_url(container, {"posix": "off", **options}, load())
        self.engine: Engine = open_engine(config)
        self._path = "/" + path.strip("/")
        self._listed: dict[tuple[Route, str], Entry] = {}

    def files(self, *, recursive: bool) -> Iterator[tuple[str, int]]:
        from fsdriver.runtime import run

        yield from run(self._files(recursive))

    async def _files(self, recursive: bool) -> Sequence[tuple[str, int]]:
        from fsdriver.entry import Kind
        from fsdriver.names import RESERVED

        found: list[tuple[str, int]] = []
        for route, inside in self.engine.tree.covering(self._path):
            entry = await self._stat(route, inside)
            base = route.path.rstrip("/")
            if entry.kind is not Kind.DIRECTORY:
                self._listed[route, inside] = entry
                found.append((f"{base}/{inside}", entry.size))
                continue
            if not recursive:
                raise IsDirectory("is a directory; --recursive takes the files in it", self.name)
            async for batch in route.find(inside):
                for name, one in batch.items():
                    if one.kind is Kind.FILE and RESERVED not in name.split("/"):
                        self._listed[route, name] = one
                        found.append((f"{base}/{name}", one.size))
        return found

    async def _stat(self, route: Route, inside: str) -> Entry:
        try:
            return await route.stat(inside)
        except NotFound as error:
            raise NotFound(error.message, self.name) from error

    def warm(self, path: str) -> Future[int]:
        from fsdriver.routes.caching import warm
        from fsdriver.runtime import spawn

        place = self.engine.route(path)
        return spawn(warm(*place, self._listed.pop(place, None)))

    def verify(self, path: str, *, everything: bool, repair: bool) -> Future[Mapping[str, Any]]:
        from fsdriver.routes.verifying import verify
        from fsdriver.runtime import spawn

        async def described() -> Mapping[str, Any]:
            return asdict(await verify(*self.engine.route(path), everything=everything, repair=repair))

        return spawn(described())

    def move(self, path: str, tier: str, *, keep: bool, pin: bool) -> Future[Mapping[str, Any]]:
        from fsdriver.routes.tiering import move
        from fsdriver.runtime import spawn

        return spawn(move(*self.engine.route(path), tier, keep=keep, pin=pin))

    def explain(self, path: str) -> Mapping[str, Any]:
        from fsdriver.routes.tiering import explain
        from fsdriver.runtime import run

        return run(explain(*self.engine.route(path)))

    def sweep(self, *, dry_run: bool) -> Mapping[str, Any]:
        from fsdriver.routes.tiering import sweep
        from fsdriver.runtime import run

        return run(sweep(self.engine.routes, dry_run=dry_run))

    def evict(self) -> Mapping[str, int]:
        from fsdriver.routes.caching import Eviction, evict
        from fsdriver.runtime import run

        done = Eviction()
        for route, inside in self.engine.tree.covering(self._path):
            try:
                done += run(evict(route, inside))
            except NotFound as error:
                raise NotFound(error.message, self.name) from error
        return asdict(done)

    def set_pins(self, paths: Iterable[str], *, pinned: bool) -> int:
        from fsdriver.routes.caching import set_pins
        from fsdriver.runtime import run

        places = map(self.engine.route, paths)
        return run(set_pins(places, pinned=pinned, known=self._listed))

    def capacity(self) -> int:
        return self.engine.cache.stats().size
