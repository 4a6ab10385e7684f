"""From fsspec paths to routes: the tree of the configuration, or a chained URL.

In the tree, ``tier://data/a.txt`` is the path ``data/a.txt``, the file ``/data/a.txt`` of the tree. In a chain,
``tier::s3://bucket/key``, paths are those of the chained protocol (``bucket/key``), and every container met becomes a
route that all instances with the same options share.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fsdriver.config import Config, load
from fsdriver.engine import Engine, open_engine
from fsdriver.errors import ConfigError, NotFound
from fsdriver.routes.route import Route

CONTAINER_IN_PATH: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"})
"""Protocols whose paths begin with the bucket or container."""
LOCAL: Final = frozenset({"file", "local", "direct"})
_PATHS: Final = 8192
"""Paths of which is remembered in which container they lie."""
WHOLE_URLS: Final = frozenset({"http", "https"})
"""Protocols whose fsspec paths keep the protocol and the host."""
S3_OPTIONS: Final = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "anon": "anonymous",
}
"""Options of s3fs, and what they are called here: a chained URL takes those its users already have."""


@dataclass(frozen=True, slots=True)
class Target:
    """One path of the fsspec face.

    Attributes
    ----------
    path : str
        As fsspec users see it, without protocol.
    route : Route
    name : str
        Relative to the route; "" is its root.
    """

    path: str
    route: Route
    name: str

    def shown(self, name: str) -> str:
        """The fsspec path of another name of the same route."""
        root = self.path[: len(self.path) - len(self.name)] if self.name else self.path
        return join(root, name)

    def at(self, name: str) -> Target:
        """Another name of the same route."""
        return Target(self.shown(name), self.route, name)


class Namespace:
    """Resolves the paths of one filesystem instance; opens the engine at the first of them.

    Parameters
    ----------
    config : Config, Path or None
        A configuration, a file, or None for the user's own files.
    protocol : str or None
        Of a chain; None resolves in the tree.
    options : mapping
        Storage options of the chained protocol.
    settings : mapping
        Keys of a route (``write``, ``ttl``) that this instance overrides.
    """

    def __init__(
        self,
        config: Config | Path | None,
        protocol: str | None,
        options: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        self.protocol = protocol
        self._config = config
        self._options = translate(protocol, options)
        self._settings = dict(settings)
        self._engine: tuple[int, Engine] | None = None
        self._containers: dict[str, Route] = {}
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The engine of this process; after a fork, the child's own.

        Raises
        ------
        ConfigError
            The configuration is wrong.
        """
        known = self._engine
        if known is None or known[0] != os.getpid():
            known = self._engine = (os.getpid(), open_engine(self._resolved(), write="through"))
            self._containers = {}
            self._lock = threading.Lock()
        return known[1]

    def target(self, path: str) -> Target:
        """Route and name of a path without protocol.

        Raises
        ------
        NotFound
            No route contains it.
        """
        if self.protocol is None:
            route, name = self.engine.route(path)
            return Target(path, route, name)
        url, name = split_container(self.protocol, path)
        engine = self.engine
        route_of = self._containers.get(url)
        if route_of is None:
            with self._lock:
                route_of = self._containers[url] = engine.adopt(url, self._options, **self._settings)
        return Target(path, route_of, name)

    def children(self, path: str) -> Sequence[str]:
        """Names below a path that show because routes hang there."""
        return self.engine.tree.children(path) if self.protocol is None else ()

    def routes_below(self, path: str) -> list[str]:
        """Paths of the routes that hang below a path, without leading slash."""
        if self.protocol is not None:
            return []
        inside = f"/{path}/" if path else "/"
        return sorted(
            route.path[1:] for route in self.engine.tree.routes if route.path.startswith(inside) and route.path != "/"
        )

    def known_routes(self) -> Sequence[Route]:
        """The routes this instance has used in this process."""
        if self._engine is None or self._engine[0] != os.getpid():
            return ()
        return self._engine[1].routes if self.protocol is None else tuple(self._containers.values())

    def _resolved(self) -> Config:
        config = self._config if isinstance(self._config, Config) else load(self._config)
        if self._settings and self.protocol is None:
            routes = [route.model_copy(update=self._settings) for route in config.route]
            config = config.model_copy(update={"route": routes})
        return config


@lru_cache(maxsize=_PATHS)
def split_container(protocol: str, path: str) -> tuple[str, str]:
    """URL of the container that a chained path lies in, and the name within it.

    Raises
    ------
    NotFound
        The path names no container: the buckets of an account are no directory of this tree.
    """
    if protocol in CONTAINER_IN_PATH:
        container, _, name = path.strip("/").partition("/")
        if not container:
            raise NotFound(f"name a container, as in tier::{protocol}://container/key: containers are not listed", path)
        return f"{protocol}://{container}", name
    if protocol in LOCAL:
        return f"{'direct' if protocol == 'direct' else 'file'}:///", path.strip("/")
    if protocol in WHOLE_URLS:
        host, _, name = path.partition("://")[2].partition("/")
        return f"{protocol}://{host}", name.strip("/")
    return f"{protocol}://", path.strip("/")


def translate(protocol: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options of a chained protocol in the words of a backend's configuration.

    Raises
    ------
    ConfigError
        An option is given twice, under both names.
    """
    if protocol not in {"s3", "s3a"}:
        return dict(options)
    given = dict(options)
    client = dict(given.pop("client_kwargs", None) or {})
    for name in ("endpoint_url", "region_name"):
        if name in client:
            given.setdefault(name, client.pop(name))
    if client:
        given["client_kwargs"] = client
    style = ((given.get("config_kwargs") or {}).get("s3") or {}).get("addressing_style")
    if style in {"path", "virtual"}:
        given.setdefault("path_style", style == "path")
    for theirs, ours in S3_OPTIONS.items():
        value = given.pop(theirs, None)
        if value is not None and given.setdefault(ours, value) != value:
            raise ConfigError(f"the options {theirs!r} and {ours!r} mean the same and differ; give one of them")
    return given


def join(directory: str, name: str) -> str:
    """A path of two parts, either of which may be empty."""
    if not directory or not name:
        return directory or name
    return f"{directory}{name}" if directory.endswith("/") else f"{directory}/{name}"


def parent(name: str) -> str:
    """The directory of a name within a route; "" is the root."""
    return name.rpartition("/")[0]
