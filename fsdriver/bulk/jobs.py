"""The jobs there are, and functions that run them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from fsdriver.bulk.job import Item
from fsdriver.bulk.report import Report
from fsdriver.bulk.running import run
from fsdriver.bulk.urls import Place, named
from fsdriver.errors import InvalidName, NotFound

PART: Final = ".fsdriver-part-"
"""How names of files begin that are still being downloaded."""


class Options(TypedDict, total=False):
    """Keywords of all jobs; see `run`. ``storage_options`` are those of the URL's backend."""

    executor: Executor | None
    jobs: int
    resume: str | os.PathLike[str] | None
    pattern: str | None
    progress: bool
    storage_options: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A local file, or all files of a directory, to a store."""

    source: str
    place: Place

    def describe(self) -> Mapping[str, str]:
        return {"kind": "upload", "from": self.source, "to": self.place.url}

    def items(self, skipped: list[str]) -> Iterator[Item]:
        if not os.path.isdir(self.source):
            status = os.stat(self.source)
            yield Item("", status.st_size, _mark(status))
            return
        for folder, names, files in os.walk(self.source, onerror=_raise):
            names.sort()
            skipped += [f"{one}: a link to a directory" for one in _links(folder, names)]
            for name in sorted(files):
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    skipped.append(f"{path}: a link to nothing")
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Item(os.path.relpath(path, self.source), status.st_size, _mark(status))
                else:
                    skipped.append(f"{path}: no regular file")

    def do(self, item: Item) -> int:
        source = os.path.join(self.source, item.path) if item.path else self.source
        self.place.fs.put_file(source, self.place.path(item.path))
        return item.size

    def stands(self, item: Item) -> bool:
        return True


class _OnStore:
    """Jobs over the files of a store."""

    __slots__ = ()
    place: Place

    def items(self, skipped: list[str]) -> Iterator[Item]:
        return _listed(self.place, skipped)

    def stands(self, item: Item) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Download(_OnStore):
    """A file, or all files of a directory, of a store to a local directory."""

    place: Place
    directory: str

    def describe(self) -> Mapping[str, str]:
        return {"kind": "download", "from": self.place.url, "to": self.directory}

    def do(self, item: Item) -> int:
        target = self._target(item)
        part = target.with_name(f"{PART}{secrets.token_hex(6)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.place.fs.get_file(self.place.path(item.path), str(part))
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return item.size

    def stands(self, item: Item) -> bool:
        try:
            return self._target(item).stat().st_size == item.size
        except OSError:
            return False

    def _target(self, item: Item) -> Path:
        relative = item.path or self.place.root.rpartition("/")[2]
        if any(one in {"", ".", ".."} for one in relative.split("/")):
            raise InvalidName("its name would lead out of the directory", item.path)
        return Path(self.directory, relative)


@dataclass(frozen=True, slots=True)
class Warm(_OnStore):
    """Files of a store into the cache of the hosts that the workers run on."""

    place: Place

    def describe(self) -> Mapping[str, str]:
        return {"kind": "warm", "of": self.place.url}

    def do(self, item: Item) -> int:
        return int(self.place.fs.warm(self.place.path(item.path)))


@dataclass(frozen=True, slots=True)
class Verify(_OnStore):
    """Files compared with the store and with the cache of the hosts that the workers run on."""

    place: Place
    everything: bool
    repair: bool

    def describe(self) -> Mapping[str, str]:
        return {"kind": "verify", "of": self.place.url, "bytes": str(self.everything)}

    def do(self, item: Item) -> int:
        found = self.place.fs.verify(self.place.path(item.path), everything=self.everything, repair=self.repair)
        if found.problems:
            raise Wrong("; ".join(found.problems))
        return int(found.bytes)


@dataclass(frozen=True, slots=True)
class Migrate(_OnStore):
    """Files of a route with several tiers to one of them."""

    place: Place
    tier: str
    keep: bool
    pin: bool

    def describe(self) -> Mapping[str, str]:
        return {"kind": "migrate", "of": self.place.url, "to": self.tier, "keep": str(self.keep), "pin": str(self.pin)}

    def do(self, item: Item) -> int:
        self.place.fs.to_tier(self.place.path(item.path), self.tier, keep=self.keep, pin=self.pin)
        return item.size


class Wrong(Exception):
    """A file is not what it should be."""


def upload(source: str | os.PathLike[str], url: str, **options: Unpack[Options]) -> Report:
    """Upload a local file, or all files of a directory with their paths; a file is done when the store has it.

    Parameters
    ----------
    source : path
    url : str
        Where to: ``tier://path``, or a URL of a store (``s3://bucket/prefix``).
    **options
        ``executor``, ``jobs``, ``resume``, ``pattern`` and ``progress`` as of `run`; ``storage_options`` of the store.

    Returns
    -------
    Report

    Examples
    --------
    >>> from concurrent.futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:               # doctest: +SKIP
    ...     upload("/data/run1", "s3://bucket/run1", executor=pool, resume="run1.journal").check()
    """
    place, rest = _split(url, options)
    return run(Upload(os.path.abspath(source), place), **rest)


def download(url: str, directory: str | os.PathLike[str], **options: Unpack[Options]) -> Report:
    """Download a file, or all files below a URL with their paths, into a directory; parameters as of `upload`.

    A file gets its name when it is complete.
    """
    place, rest = _split(url, options)
    return run(Download(place, os.path.abspath(directory)), **rest)


def warm(url: str, **options: Unpack[Options]) -> Report:
    """Fetch all files below a URL into the cache of the hosts that the workers run on; parameters as of `upload`."""
    place, rest = _split(url, options)
    return run(Warm(place), **rest)


def verify(url: str, *, everything: bool = False, repair: bool = False, **options: Unpack[Options]) -> Report:
    """Compare all files below a URL with store and cache; what is wrong is among the failures.

    Parameters
    ----------
    url : str
    everything : bool
        Fetch all bytes.
    repair : bool
        Fetch anew what the cache has damaged.
    **options
        As of `upload`.
    """
    place, rest = _split(url, options)
    return run(Verify(place, everything, repair), **rest)


def migrate(url: str, tier: str, *, keep: bool = False, pin: bool = False, **options: Unpack[Options]) -> Report:
    """Have verified copies of all files below a path of the configured tree in a tier.

    Parameters
    ----------
    url : str
        ``tier://path``, of a route with several tiers.
    tier : str
        Name of the backend.
    keep : bool
        Leave the copies in other tiers where they are.
    pin : bool
        Let no rule move the files away again.
    **options
        As of `upload`, without ``storage_options``.
    """
    place, rest = _split(url, options)
    return run(Migrate(place, tier, keep, pin), **rest)


def _split(url: str, options: Options) -> tuple[Place, dict[str, Any]]:
    rest: dict[str, Any] = dict(options)
    return named(url, rest.pop("storage_options", None)), rest


def _listed(place: Place, skipped: list[str]) -> Iterator[Item]:
    found: Mapping[str, Mapping[str, Any]] = place.fs.find(place.root, detail=True)
    if not found and not place.fs.exists(place.root):
        raise NotFound("no such file or directory", place.url)
    for path, info in found.items():
        if info["type"] != "file":
            skipped.append(f"{path}: no regular file")
            continue
        relative = path.removeprefix(place.root).strip("/")
        yield Item(relative, info["size"], info.get("ETag") or f"{info['size']}-{info['mtime']}")


def _mark(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


def _links(folder: str, names: Iterable[str]) -> list[str]:
    return [path for name in names if os.path.islink(path := os.path.join(folder, name))]


def _raise(error: OSError) -> None:
    raise error
