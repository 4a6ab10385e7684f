"""The fsspec face: ``tier://route/path`` for the configured tree, ``tier::s3://bucket/key`` for any URL fsspec knows.

An instance is a thin handle: the engine, its caches and connections belong to the process and are opened by the first
operation (`fsdriver.engine.open_engine`), so two instances, and a mount on the same host, share one cache.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from fsspec.asyn import get_loop
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import get_filesystem_class
from fsspec.utils import stringify_path
from pydantic import ValidationError

from fsdriver import runtime
from fsdriver.backends import ABSENT
from fsdriver.config import Config
from fsdriver.entry import Kind
from fsdriver.errors import AlreadyExists, ConfigError, IsDirectory
from fsdriver.fsspec_face.caching import Caching
from fsdriver.fsspec_face.changing import Changing
from fsdriver.fsspec_face.reading import DecompressedFile, MemoryRaw, ReadFile
from fsdriver.fsspec_face.targets import LOCAL, Namespace
from fsdriver.fsspec_face.transfer import Transfer
from fsdriver.fsspec_face.writing import CompressedFile, TextFile, UpdateFile, WriteFile, open_staged

STRIPPED: Final = 8192
"""Paths of a chained URL that are remembered without their protocol."""
MODES = frozenset({"rb", "wb", "xb", "ab", "r+b", "w+b", "x+b", "a+b"})


class TierFileSystem(Caching, Transfer, Changing, ChainedFileSystem):
    """Object stores as one file tree, with a cache, for everything that speaks fsspec.

    Parameters
    ----------
    config : str, Path or mapping, optional
        A configuration file, or a configuration itself (the tables of the TOML dialect); by default the user's files.
    write : {"through", "back"}, optional
        When a write is done: the tiers have it (default), or the journal. By default as the route says.
    ttl : float, optional
        Seconds that attributes and listings are trusted; by default as the route says.
    fo, target_protocol, target_options
        Set by fsspec for chained URLs: ``fsspec.open("tier::s3://b/k", s3={"key": …, "secret": …})``.
    asynchronous, loop, batch_size
        As in `fsspec.asyn.AsyncFileSystem`.

    Raises
    ------
    ConfigError
        ``config`` is a mapping that is no configuration.

    Examples
    --------
    >>> import fsspec, pandas
    >>> pandas.read_csv("tier://data/table.csv")                                          # doctest: +SKIP
    >>> with fsspec.open("tier::s3://bucket/key", "wb", s3={"endpoint_url": url}) as f:   # doctest: +SKIP
    ...     f.write(b"bytes")
    """

    protocol = "tier"
    async_impl = True
    root_marker = ""
    local_file = False
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | None = None,
        *,
        write: Literal["through", "back"] | None = None,
        ttl: float | None = None,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **kwargs)
        settings = {name: value for name, value in (("write", write), ("ttl", ttl)) if value is not None}
        self._own_loop = loop
        self._namespace = Namespace(_read_config(config), target_protocol, target_options or {}, settings)
        if target_protocol is not None:
            self._speak_like(target_protocol)

    def _speak_like(self, protocol: str) -> None:
        """Paths of a chain are those of its protocol: ``bucket/key``, ``/dir/x``, ``https://host/x``."""
        inner = get_filesystem_class(protocol)

        def plain(text: str) -> Any:
            for own in ("tier::", "tier://"):
                text = text.removeprefix(own)
            return inner._strip_protocol(text)  # noqa: SLF001 - fsspec's way from URL to path

        # Local paths may be relative, to a directory that changes.
        known = plain if protocol in LOCAL else lru_cache(maxsize=STRIPPED)(plain)

        def strip(path: Any) -> Any:
            if isinstance(path, list):
                return [strip(one) for one in path]
            return known(stringify_path(path))

        self.root_marker = inner.root_marker
        # Both are class methods of fsspec; its own chained filesystems put them on the instance, too.
        self.__dict__["_strip_protocol"] = strip
        self.__dict__["_parent"] = inner._parent  # noqa: SLF001

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return stringify_path(path).removeprefix("tier://").removeprefix("tier::").strip("/")

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop synchronous calls run on; after a fork, the child's own."""
        if self.asynchronous:
            return None
        return self._own_loop or get_loop()

    @property
    def fsid(self) -> str:
        """Identity of what this instance shows."""
        return f"tier_{self._fs_token}"

    # -- files ---------------------------------------------------------------------------------------------------------

    def open(
        self,
        path: Any,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Mapping[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a file.

        Parameters
        ----------
        path : str
        mode : str
            ``rb``, ``wb``, ``xb``, ``ab``, ``r+b``, ``w+b``, ``x+b``, ``a+b``, and the same as text.
        block_size, cache_options
            Accepted as fsspec's users give them; the cache of the driver chooses its own.
        compression : str, optional
            A codec of `fsspec.compression`, or ``"infer"``.
        **kwargs
            ``encoding``, ``errors``, ``newline`` of text; ``autocommit=False`` publishes at ``commit()`` only.

        Returns
        -------
        file-like
            What is written becomes the object when the file is closed, all or nothing; an exception inside ``with``
            publishes nothing, and a file that is never closed neither.

        Raises
        ------
        NotFound, IsDirectory
        AlreadyExists
            Mode ``x`` and the name is taken; checked here, and again, atomically, when the file is closed.
        """
        path = self._strip_protocol(path)
        if mode == "rb" and compression is None and not kwargs:
            return self._open(path)
        binary = _binary_mode(mode)
        text = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
        deferred = not kwargs.pop("autocommit", not self._intrans)
        file: Any = self._open(path, binary, autocommit=not deferred)
        writes = binary != "rb"
        if deferred and writes:
            self.transaction.files.append(file)
        codec = get_compression(path, compression)
        if codec is not None:
            outer = compr[codec](file, mode=binary[0])
            file = CompressedFile(outer, file) if writes else DecompressedFile(outer, file)
        return file if "b" in mode else TextFile(file, **text)

    def _open(self, path: str, mode: str = "rb", *args: Any, autocommit: bool = True, **kwargs: Any) -> Any:
        """A binary file of a path without protocol."""
        if mode == "rb":
            target = self._namespace.target(path)
            entry = target.route.cached(target.name)
            if entry is not None and (data := target.route.at_hand(target.name, entry)) is not None:
                return ReadFile(self, path, entry, MemoryRaw(data))
            return runtime.run(self._open_reader(path))
        # Taken here: a cold file is opened on the event loop, whose thread handles no exception of the caller.
        handled = sys.exc_info()[1]
        return runtime.run(self._open_writer(path, mode, autocommit, handled))

    async def _open_reader(self, path: str) -> ReadFile:
        target, entry = await self._located(path)
        data = target.route.at_hand(target.name, entry)
        source = await self._open_located(path, target, entry) if data is None else MemoryRaw(data)
        return ReadFile(self, path, entry, source)

    async def _open_writer(
        self, path: str, mode: str, autocommit: bool, handled: BaseException | None
    ) -> WriteFile | UpdateFile:
        kind = mode[0]
        target = await self._writable(path)
        entry = target.route.cached(target.name)
        base: str | None = None
        if kind == "r":
            target, entry = await self._located(path)
        elif kind != "w":
            entry = await target.route.find_entry(target.name)
            if kind == "a" and entry is not None and entry.kind is Kind.SYMLINK:
                target, entry = await self._located(path)
        if entry is not None and entry.kind is Kind.DIRECTORY:
            raise IsDirectory("is a directory", path)
        if kind == "x" and entry is not None:
            raise AlreadyExists("the name is taken", path)
        if kind == "x" or (kind == "a" and entry is None):
            base = ABSENT
        staging = target.route.services.staging
        if kind in "ra" and entry is not None:
            base = entry.version
            staged = staging.adopt(await target.route.materialize(target.name, entry), None, inherited=False)
        else:
            staged = staging.new(None)
        return open_staged(self, target, staged, mode, base, autocommit, handled)


class DirectFileSystem(TierFileSystem):
    """``direct:///dir/x``: local files past the page cache; by itself the same as ``tier::direct:///dir/x``."""

    protocol = "direct"
    root_marker = LocalFileSystem.root_marker

    def __init__(self, *args: Any, target_protocol: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, target_protocol=target_protocol or "direct", **kwargs)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return LocalFileSystem._strip_protocol(stringify_path(path).removeprefix("direct://"))  # noqa: SLF001

    @classmethod
    def _parent(cls, path: Any) -> Any:
        return LocalFileSystem._parent(cls._strip_protocol(path))  # noqa: SLF001


def _binary_mode(mode: str) -> str:
    """``r``, ``rt``, ``rb+`` and the like in one spelling."""
    kinds = [letter for letter in mode if letter in "rwxa"]
    plain = f"{''.join(kinds)}{'+' if '+' in mode else ''}b"
    if plain not in MODES or set(mode) - set("rwxabt+") or ("b" in mode and "t" in mode):
        raise ValueError(f"mode {mode!r} is none of {', '.join(sorted(MODES))} or their text forms")
    return plain


def _read_config(config: str | Path | Mapping[str, Any] | None) -> Config | Path | None:
    if config is None or isinstance(config, Path):
        return config
    if isinstance(config, str):
        return Path(config).expanduser()
    try:
        return Config.model_validate(dict(config))
    except ValidationError as error:
        found = error.errors(include_input=False)
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)
        raise ConfigError(f"the mapping given as config= is no configuration: {wrong}") from error
