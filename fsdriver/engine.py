"""The engine: the one object of a process that owns connections, cache, journal and routes.

Faces hold no state of their own: they ask `open_engine` for the engine of a configuration, which the process keeps in one
registry. After a fork the child makes engines of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from fsdriver.attributes import META_PREFIX
from fsdriver.backends import open_backend, weakness
from fsdriver.backends.store import Store
from fsdriver.cache import Cipher, DiskCache, Epochs
from fsdriver.config import BackendConfig, Config, RouteConfig, cache_dir, load, offered_dirs, runtime_dir, state_dir
from fsdriver.config.values import reveal_key
from fsdriver.errors import AccessDenied, ConfigError, NotFound, ReadOnly, Stale
from fsdriver.metadata.entries import Defaults
from fsdriver.notify import announce
from fsdriver.routes.lenders import Lenders
from fsdriver.routes.prefetching import Prefetcher
from fsdriver.routes.route import Route
from fsdriver.routes.services import Policy, Services, WriteMode
from fsdriver.routes.tree import Tree
from fsdriver.runtime import on_loop, run
from fsdriver.tiers.catalog import Catalog as TierCatalog
from fsdriver.tiers.opening import is_stack, open_catalog, open_stack, pace_of, policy_of
from fsdriver.tiers.stack import Stack
from fsdriver.tiers.working import TierWorker
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.leftovers import UploadLog
from fsdriver.writeback.lock import UploaderLock
from fsdriver.writeback.pending import Pending
from fsdriver.writeback.powerloss import after_boot, boot_id
from fsdriver.writeback.staging import Staging
from fsdriver.writeback.uploader import Uploader

log = logging.getLogger(__name__)

DEFAULT_CACHE_SIZE: Final = 20 << 30
DRAIN_AT_EXIT: Final = 10.0
"""Seconds a process without a daemon spends at its end on what its engines still owe; the rest stays journaled."""


class Engine:
    """See the module; made by `open_engine`.

    Parameters
    ----------
    config : Config
    write : {"back", "through"}
        What a route without ``write`` does: the face's default.
    daemon : bool
        This process serves a mount: it is the one that others tell about changes.
    """

    def __init__(self, config: Config, write: WriteMode, *, daemon: bool = False) -> None:
        self.config = config
        self.write = write
        self.daemon = daemon
        self.born_ns = time.time_ns()
        directory = cache_dir(config)
        state = state_dir()
        self.cache = DiskCache(
            directory,
            size=_cache_size(config, directory),
            min_free=config.cache.min_free,
            entries=config.cache.entries,
            memory=0 if daemon else config.cache.memory,
            cipher=_cipher(config),
        )
        self.journal = Journal(state / "catalog.db")
        if daemon:
            self.journal.must_be_whole()
        after_boot(self.journal, boot_id())
        self.staging = Staging(directory / ".staging")
        self.epochs = Epochs(state / "epochs")
        self.prefetcher = Prefetcher()
        self._lenders = None if daemon else Lenders(offered_dirs())
        self.state = state
        self.backends: dict[str, tuple[Store, str]] = {}
        self.weaknesses: dict[str, str] = {}
        self.stacks: dict[str, Stack] = {}
        self.workers: dict[str, TierWorker] = {}
        self.uploaders: dict[str, Uploader] = {}
        self.routes: list[Route] = []
        self._adopted: dict[str, Route] = {}
        self._builders: dict[str, Callable[[str], Route]] = {}
        self._foreign: dict[tuple[str, str], Route] = {}
        self._lock = threading.RLock()
        _name_what_has_no_effect(config)
        for route in config.route:
            self.routes.append(self._make_route(route, config.backend))
        self.tree = Tree(self.routes)

    def route(self, path: str) -> tuple[Route, str]:
        """Route of a tree path, and the path within it. Raises NotFound."""
        return self.tree.resolve(path)

    def adopt(self, url: str, storage_options: Mapping[str, Any] | None = None, **settings: Any) -> Route:
        """A route for the container of a chained URL (``tier::s3://bucket/key``), shared by all who name it.

        Parameters
        ----------
        url : str
            Root of the route, e.g. ``s3://bucket``.
        storage_options : mapping
            Keys of `BackendConfig`; others go to the fsspec filesystem of the scheme.
        settings
            Keys of `RouteConfig` (``write``, ``ttl``, …).
        """
        known = {k: v for k, v in (storage_options or {}).items() if k in BackendConfig.model_fields and k != "url"}
        other = {k: v for k, v in (storage_options or {}).items() if k not in known}
        backend = BackendConfig.model_validate({"url": url, "storage_options": other} | known)
        name = f"chained:{Config(backend={'chained': backend}).fingerprint()}"
        # The root of a chained file:// is that of the whole machine: nothing but the files themselves is written there.
        posix = "off" if url.partition(":")[0] in {"file", "local", "direct"} else "full"
        route = RouteConfig.model_validate({"path": "/", "tiers": [name], "posix": posix} | settings)
        with self._lock:
            key = f"{name}|{route!r}"
            if key not in self._adopted:
                self._adopted[key] = self._make_route(route, {name: backend})
            return self._adopted[key]

    def _make_route(self, config: RouteConfig, backends: Mapping[str, BackendConfig]) -> Route:
        store, prefix = self._open_stack(config) if is_stack(config) else self._open_backend(config.tiers[0], backends)
        timeout = 2 * max(backends[name].timeout for name in (*config.tiers, *config.replicate))
        if store.identity not in self.uploaders:
            store.uploads = UploadLog(self.journal, store.identity)
            self.uploaders[store.identity] = Uploader(
                store, self.journal, self.staging, self.cache, self.state, self._carried_out, self._lost,
                partial(self._foreign_route, store.identity),
            )  # fmt: skip
            self._builders[store.identity] = partial(
                self._build_route, RouteConfig(tiers=config.tiers[:1]), store, timeout=timeout
            )
        route = self._build_route(config, store, prefix, timeout=timeout)
        self.uploaders[store.identity].routes[prefix] = route
        return route

    def _open_backend(self, name: str, backends: Mapping[str, BackendConfig]) -> tuple[Store, str]:
        if name not in self.backends:
            self.backends[name] = open_backend(name, backends[name])
            self._name_weakness(name, backends[name])
        return self.backends[name]

    def _open_stack(self, config: RouteConfig) -> tuple[Store, str]:
        for name in (*config.tiers, *config.replicate):
            self._name_weakness(name, self.config.backend[name])
        policy = policy_of(config, self.config)
        stack = open_stack(config, self.config, self.tier_catalog, self.staging.directory, policy, self._wake_workers)
        if (known := self.stacks.get(stack.identity)) is not None:
            if list(known.tiers) != list(stack.tiers):
                raise ConfigError(
                    f"two routes keep different stacks in one place: {', '.join(stack.tiers)}", config.path
                )
            return known, ""
        self.stacks[stack.identity] = stack
        lock = UploaderLock(self.state, f"tiers|{stack.identity}")
        owner = f"{os.uname().nodename}-{os.getpid()}"
        self.workers[stack.identity] = TierWorker(stack, lock, owner, pace_of(config, self.config))
        return stack, ""

    @cached_property
    def tier_catalog(self) -> TierCatalog:
        """What tiers hold which version of what; opened by the first stack."""
        return open_catalog(self.config.catalog, self.state)

    def _wake_workers(self) -> None:
        for worker in self.workers.values():
            worker.wake()

    def _name_weakness(self, name: str, config: BackendConfig) -> None:
        if name not in self.weaknesses and (found := weakness(config)):
            self.weaknesses[name] = found
            log.warning("backend %r: %s", name, found)

    @cached_property
    def _sockets(self) -> Path:
        """Where daemons listen; found out (and proved usable) once, by the first change."""
        return runtime_dir()

    async def _announce(self, identity: str, keys: Sequence[str]) -> None:
        await announce(self._sockets, identity, keys)

    def _build_route(self, config: RouteConfig, backend: Store, prefix: str, *, timeout: float) -> Route:
        policy = Policy(
            write=config.write or self.write,
            fsync=config.fsync,
            ttl=float("inf") if config.immutable else config.ttl,
            negative_ttl=config.negative_ttl,
            read_only=config.read_only or backend.capabilities.read_only,
            posix=config.posix == "full",
            foreign_metadata=config.foreign_metadata,
            most_remembered=self.config.cache.metadata,
            quota=config.quota,
            timeout=timeout,
        )
        defaults = Defaults(
            config.mode,
            config.dir_mode,
            os.getuid() if config.uid is None else config.uid,
            os.getgid() if config.gid is None else config.gid,
            self.born_ns,
        )
        services = Services(
            self.journal,
            self.staging,
            self.cache,
            self.epochs,
            self.uploaders[backend.identity],
            None if self.daemon else self._announce,
            self._lenders,
        )
        return Route(config.path, backend, prefix, policy, defaults, services)

    def _foreign_route(self, identity: str, root: str) -> Route:
        """The route of another process, whose changes this one carries out."""
        key = identity, root
        if key not in self._foreign:
            self._foreign[key] = self._builders[identity](root)
        return self._foreign[key]

    def _all_routes(self) -> list[Route]:
        return [*self.routes, *self._adopted.values()]

    def _routes_of(self, row: Pending) -> list[Route]:
        known = [
            route for route in self._all_routes() if route.backend.identity == row.store and route.prefix == row.root
        ]
        return known or [self._foreign_route(row.store, row.root)]

    def _carried_out(self, row: Pending, version: str) -> None:
        for route in self._routes_of(row):
            route.carried_out(row, version)

    def _lost(self, row: Pending) -> None:
        for route in self._routes_of(row):
            route.lost(row)

    async def check(self) -> None:
        """Prove that every route's store exists and answers; raises the error that explains what is wrong.

        A route whose credentials may only read becomes read-only, which is logged and shown in ``status``.
        """
        await on_loop()
        for route in self.routes:
            await route.backend.check(route.prefix)
            if not route.policy.read_only and not await _may_write(route):
                log.warning(
                    "route %s: these credentials may only read %s; it is read-only", route.path, route.backend.identity
                )
                route.policy = replace(route.policy, read_only=True)

    def resume(self) -> None:
        """Carry out what an earlier process left in the journal."""
        for uploader in self.uploaders.values():
            uploader.wake()
        if self.daemon:
            run(self._stay())

    async def _stay(self) -> None:
        await on_loop()
        for worker in self.workers.values():
            worker.stay()

    def owes(self) -> bool:
        """Whether a store lacks anything: contents, names, records of attributes, or the end of a mark in them."""
        owing = any(route.marked or not self.journal.is_empty(route.backend.identity) for route in self._all_routes())
        return owing or any(worker.busy for worker in self.workers.values())

    def pending(self) -> tuple[int, int]:
        """How many changes at and below the routes wait for the stores, and their bytes."""
        roots = {(route.backend.identity, route.root_key) for route in self._all_routes()}
        outer = [
            (store, root)
            for store, root in roots
            if not any(store == other and root != above and root.startswith(above) for other, above in roots)
        ]
        counts = [self.journal.count(store, root) for store, root in outer]
        return sum(rows for rows, _ in counts), sum(size for _, size in counts)

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing is pending, for all routes at once; raises as `sync_all`."""
        owing = [
            route for route in self._all_routes() if route.marked or not self.journal.is_empty(route.backend.identity)
        ]
        await sync_all([(route, "") for route in owing], timeout)
        with contextlib.suppress(TimeoutError):  # what is left stays in the catalog
            await asyncio.gather(*(worker.settled(timeout) for worker in self.workers.values()))

    def close(self) -> None:
        """Stop the uploaders and close connections and files; what is pending stays journaled."""
        _forget(self)
        run(self.prefetcher.close())
        for uploader in self.uploaders.values():
            run(uploader.close())
        backends = [backend for backend, _ in self.backends.values()]
        open_ones: list[Store | TierWorker] = [*self.workers.values(), *self.stacks.values(), *backends]
        for one in open_ones:
            run(_close(one))
        if self.stacks:
            run(self.tier_catalog.close())
        self.journal.close()
        self.cache.close()


async def sync_all(places: Iterable[tuple[Route, str]], timeout: float | None = None) -> None:
    """Wait until the stores have everything at and below some paths; what one of them refuses holds up no other.

    Parameters
    ----------
    places : iterable of (Route, str)
        Paths within their routes.
    timeout : float, optional
        Seconds for all of them.

    Raises
    ------
    FsdriverError
        The first failure, once all have ended; TimedOut after ``timeout``.
    """
    await on_loop()
    waits = (route.sync(path, timeout) for route, path in places)
    for result in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _may_write(route: Route) -> bool:
    """Ask without writing: a PUT on the condition of a version that no object has is refused for one reason or the other."""
    if not route.backend.capabilities.conditional_put:
        return True
    try:
        await route.backend.put(f"{route.root_key}{META_PREFIX}probe", b"", if_version="0" * 32)
    except (Stale, NotFound):
        return True
    except (AccessDenied, ReadOnly):
        return False
    return True


async def _close(one: Store | TierWorker) -> None:
    await on_loop()
    await one.close()


def _name_what_has_no_effect(config: Config) -> None:
    """Keys that are understood but that this version does not act on: said, never ignored in silence."""
    if "isolate" in config.cache.model_fields_set:
        log.warning("this setting has no effect yet: [cache] isolate")


def _cipher(config: Config) -> Cipher | None:
    key = config.cache.encryption_key
    return None if key is None else Cipher(reveal_key(key, "cache.encryption_key"))


def _cache_size(config: Config, directory: Path) -> int:
    if config.cache.size is not None:
        return config.cache.size
    status = os.statvfs(directory)
    return min(DEFAULT_CACHE_SIZE, status.f_blocks * status.f_frsize // 10)


_registry: dict[tuple[str, str, int], Engine] = {}
_registry_lock = threading.Lock()


def open_engine(config: Config | None = None, *, write: WriteMode = "through", daemon: bool = False) -> Engine:
    """The process's engine for a configuration; None is that of the user's configuration files.

    Raises
    ------
    ConfigError
        The configuration is wrong, or its places cannot be used.
    """
    config = load() if config is None else config
    key = (config.fingerprint(), write, os.getpid())
    with _registry_lock:
        if key not in _registry:
            _registry[key] = Engine(config, write, daemon=daemon)
        return _registry[key]


def _forget(engine: Engine) -> None:
    with _registry_lock:
        for key in [key for key, known in _registry.items() if known is engine]:
            del _registry[key]


def _after_fork() -> None:
    """A child inherits descriptors and locks it must not use: it starts with an empty registry."""
    global _registry_lock  # noqa: PLW0603 - one that a thread of the parent held at the fork would stay held here
    _registry_lock = threading.Lock()
    for engine in _registry.values():
        for uploader in engine.uploaders.values():
            uploader.lose_lock()
    _inherited.extend(_registry.values())
    _registry.clear()


_inherited: list[Engine] = []
"""Engines of the parent, kept alive so that no finaliser of theirs runs in the child."""


def _at_exit() -> None:
    if owing := [engine for engine in list(_registry.values()) if not engine.daemon and engine.owes()]:
        run(_drain_all(owing))


async def _drain_all(engines: Sequence[Engine]) -> None:
    """Drain all at once: a store that does not answer takes no time from the others."""
    await on_loop()
    drains = (engine.drain(DRAIN_AT_EXIT) for engine in engines)
    for result in await asyncio.gather(*drains, return_exceptions=True):
        if isinstance(result, OSError):
            log.warning("not everything written is in the store; it stays journaled for the next process: %s", result)
        elif result is not None:
            raise result


os.register_at_fork(after_in_child=_after_fork)
# Not `atexit`: by then executors take no more work, and most stores need one. Handlers run in reverse order of their
# registration, that of concurrent.futures came first.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
