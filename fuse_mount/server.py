"""One mount from start to end: engine, kernel connection, control socket, and the order in which they begin and finish."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdriver import names
from fsdriver.engine import Engine, open_engine, sync_all
from fsdriver.errors import ConfigError, TimedOut
from fsdriver.runtime import run

from . import device as devices
from .caching import CacheCommands
from .control import Answer, ControlServer, ask, socket_path
from .draining import Drain, amount
from .filesystem import FileSystem
from .inodes import descend
from .kernel import KernelTransport
from .lending import LendingServer
from .passthrough import Passthrough
from .service import notify_service
from .synthetic import make_directory
from .transport import LIBFUSE, Expired, Transport, choose

if TYPE_CHECKING:
    from fsdriver.config import Config
    from fsdriver.routes.route import Route
    from fsdriver.writeback.pending import Pending

    from .options import MountOptions

log = logging.getLogger(__name__)

CHECK_PATIENCE: Final = 60.0
FAILING_SHOWN: Final = 20
"""Changes of each store that ``status`` shows which it did not take."""
LAZY_PATIENCE: Final = 5.0


class MountServer:
    """See the module.

    Parameters
    ----------
    config : Config
    directory : str
        Absolute mountpoint.
    options : MountOptions
    """

    def __init__(self, config: Config, directory: str, options: MountOptions) -> None:
        self.directory = directory
        self.options = options
        self.source = options.fsname or _source(config)
        self.state = "starting"
        self.transport, self._why = choose(options.transport)
        self.started = time.time()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self.engine: Engine = open_engine(config, write="back", daemon=True)
        try:
            refuse_second_mount(self._roots(), directory, self.engine.state)
        except ConfigError:
            self.engine.close()
            raise
        self._drain = Drain(self.engine, directory, options.drain_timeout)
        self.passthrough = Passthrough()
        if not options.passthrough:
            self.passthrough.disable("switched off by an option")
        elif self.engine.cache.cipher is not None:
            self.passthrough.disable("the cache is encrypted")
        synthetic = make_directory(
            {"stats.json": self.status, "pending.json": self._pending, "health.json": self._health}
        )
        self.fs = FileSystem(self.engine.routes, self.passthrough, synthetic)
        self._transport: Transport | None = None
        self._control = ControlServer(
            socket_path(directory),
            {
                "status": self._answer_status,
                "refresh": self._refresh,
                "sync": self._sync,
                "invalidate": self._invalidate,
                "bound": self._bound,
                "stop": self._answer_stop,
                **CacheCommands(self.fs, self.engine.tree).commands(),
            },
        )

        # Nobody trusts such a socket of an ordinary user.
        encrypted = self.engine.cache.cipher is not None
        lends = options.allow_other and os.geteuid() == 0 and not encrypted
        self._lending = (
            LendingServer(self.fs, self.engine.tree, self.engine.cache, directory, socket_path(directory).stem)
            if lends
            else None
        )

    def _roots(self) -> set[str]:
        """Store and key prefix of every route."""
        return {f"{route.backend.identity}|{route.prefix}" for route in self.engine.routes}

    # -- the beginning -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Mount, and return when the tree is usable.

        Raises
        ------
        FsdriverError
            The reason it is not; nothing stays mounted then.
        """
        try:
            run(self.engine.check(), CHECK_PATIENCE)
        except TimedOut:
            raise
        except TimeoutError as error:
            raise TimedOut(f"the store gave no answer within {CHECK_PATIENCE:g} s", self.source) from error
        flags = self.options.flags | (devices.MS_RDONLY if self._read_only() else 0)
        request = devices.MountRequest(
            self.directory, self.source, self.options.allow_other, flags, self.options.max_read
        )
        self._transport = self._make_transport(request)
        # Before READY: a service manager may stop at once what has just said so.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.request_stop)
        self._transport.start()
        self.fs.expire = self._transport.expire
        try:
            run(self._control.start())
            self._start_lending()
            self.engine.resume()
        except BaseException:  # an interrupt leaves no dead mount either
            devices.unmount(self.directory, lazy=True)
            raise
        self.state = "mounted"
        notify_service("READY=1", f"STATUS=serving {self.source} at {self.directory}")
        log.info("%s is mounted at %s, transport %s (%s)", self.source, self.directory, self.transport, self._why)

    def _start_lending(self) -> None:
        if self._lending is not None:
            try:
                run(self._lending.start(self._stores()))
            except OSError as error:
                log.warning("%s: cached files are not handed to other users: %s", self.directory, error)

    def _make_transport(self, request: devices.MountRequest) -> Transport:
        if self.transport == LIBFUSE:
            from .libfuse.transport import LibfuseTransport  # noqa: PLC0415 - its package is an extra

            return LibfuseTransport(self.fs, request, self.options, self._wake.set)
        return KernelTransport(self.fs, request, self.options, self.engine.staging.directory, self._wake.set)

    def _read_only(self) -> bool:
        read_only = all(route.policy.read_only for route in self.engine.routes)
        if read_only and not self.options.read_only:
            log.info("%s: every route is read-only, so the mount is", self.directory)
        return read_only

    # -- waiting and the end -----------------------------------------------------------------------------------------

    def request_stop(self, *_: object) -> None:
        """Drain and unmount; asked again, do not wait for uploads any more. Safe in a signal handler."""
        if self._stop.is_set():
            self._drain.give_up()
        self._stop.set()
        self._wake.set()

    def serve(self) -> int:
        """Wait for the end of the mount or for a signal; returns the exit status: 0 when the tiers have everything."""
        assert self._transport is not None
        ended = self._transport.ended
        while not ended.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set() and not ended.is_set():
                self._leave(ended)
        return self._finish()

    def _leave(self, ended: threading.Event) -> None:
        """Told to stop: upload, then unmount; what is busy is detached."""
        notify_service("STOPPING=1", "STATUS=uploading what is pending")
        self.state = "draining"
        self._drain.run()
        try:
            devices.unmount(self.directory)
        except OSError as error:
            log.warning("%s: %s; detaching it, open files there end now", self.directory, error.strerror)
            try:
                devices.unmount(self.directory, lazy=True)
            except OSError:
                log.exception("%s cannot be detached", self.directory)
        if not ended.wait(LAZY_PATIENCE):
            ended.set()

    def _finish(self) -> int:
        self.state = "draining"
        notify_service("STOPPING=1", "STATUS=uploading what is pending")
        if self._transport is not None:
            self._transport.stop()
        if self._lending is not None:
            run(self._lending.stop())
        failures = [str(error) for error in run(self.fs.open_files.close())]
        if failed := self._drain.run():
            failures.append(failed)
        for failure in failures:
            log.error("%s: %s", self.directory, failure)
        pending, size = self.engine.pending()
        last = {"pending": pending, "pending_bytes": size, "failures": failures}
        self.engine.close()
        run(self._control.stop(last))
        self.fs.disk.shutdown(wait=False)
        if pending:
            told = "%s is unmounted; %s are journaled, but not uploaded: the next mount of %s sends them"
            log.error(told, self.directory, amount(pending, size), self.source)
        else:
            log.info("%s is unmounted; everything is uploaded", self.directory)
        return 1 if pending or failures else 0

    # -- commands ----------------------------------------------------------------------------------------------------

    async def _answer_status(self, _: Mapping[str, Any]) -> Answer:
        return self.status()

    async def _bound(self, request: Mapping[str, Any]) -> Answer:
        self._drain.end_within(float(request["seconds"]))
        return {}

    async def _answer_stop(self, _: Mapping[str, Any]) -> Answer:
        self.request_stop()
        return {}

    async def _sync(self, request: Mapping[str, Any]) -> Answer:
        path, timeout = str(request.get("path", "/")), request.get("timeout")
        await sync_all(self.engine.tree.covering(path), timeout)
        return {"pending": self.engine.pending()[0]}

    async def _refresh(self, request: Mapping[str, Any]) -> Answer:
        self.fs.open_files.unpark_all()  # of files that others, or `verify`, have taken from the cache
        known: list[Expired] = []
        for route, inside in self.engine.tree.covering(str(request.get("path", "/"))):
            route.forget(inside)
            node = self.fs.table.find(route, inside)
            known += [Expired(one, tuple(one.names)) for one in (descend(node) if node is not None else ())]
        await self._expire(known, everything=True)
        return {"names": len(known)}

    async def _invalidate(self, request: Mapping[str, Any]) -> Answer:
        known: list[Expired] = []
        for route in self.engine.routes:
            if route.backend.identity != request["store"]:
                continue
            route.services.uploader.wake()
            for key in request["keys"]:
                inside = (
                    str(key).removeprefix(route.root_key).rstrip("/") if str(key).startswith(route.root_key) else None
                )
                path = names.to_name(inside) if inside else inside
                if path is not None:
                    route.memory.forget_entry(path)
                    await self._unlink_stale(route, path)
                    known += self._changed(route, path)
        await self._expire(known)
        return {"names": len(known)}

    async def _unlink_stale(self, route: Route, path: str) -> None:
        """A name of a hard-linked file that now is gone, or stands for another file, leaves the node of the others."""
        node = self.fs.table.find(route, path)
        if node is None or len(node.names) < 2:
            return
        entry = await route.find_entry(path)
        if entry is None or self.fs.table.changed(node, entry):
            directory, _, name = path.rpartition("/")
            parent = self.fs.table.find(route, directory)
            if parent is not None:
                self.fs.table.unlink(parent, name)

    def _changed(self, route: Route, path: str) -> list[Expired]:
        directory, _, name = path.rpartition("/")
        parent, node = self.fs.table.find(route, directory), self.fs.table.find(route, path)
        known = [] if node is None else [Expired(node)]
        if parent is not None:
            known.append(Expired(parent, ((parent, name),) if name else ()))
        return known

    async def _expire(self, known: list[Expired], *, everything: bool = False) -> None:
        assert self._transport is not None
        await asyncio.wrap_future(self._transport.expire(known, everything=everything))

    # -- what is told ------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything ``fsdriver status`` shows."""
        rows, size = self.engine.pending()
        return {
            "source": self.source,
            "mountpoint": self.directory,
            "pid": os.getpid(),
            "state": self.state,
            "uptime": time.time() - self.started,
            "state_dir": str(self.engine.state),
            "stores": self._stores(),
            "roots": sorted(self._roots()),
            "pending": rows,
            "pending_bytes": size,
            "drain_timeout": self.options.drain_timeout,
            "failing": self._failing(),
            "conflicts": self._conflicts(),
            "disowned": self.engine.staging.disowned,
            "out_of_reach": self._out_of_reach(),
            "weaknesses": self.engine.weaknesses,
            "transport": self.transport,
            "transport_reason": self._why,
            "passthrough": "on" if self.passthrough.enabled else f"off: {self.passthrough.reason}",
            "passthrough_files": self.passthrough.in_use,
            "passthrough_refused": self.passthrough.refused,
            "nodes": len(self.fs.table),
            "open_files": len(self.fs.handles.files),
            "stale_opens": self.fs.open_files.stale,
            "kept_for_readers": sum(one.keeper.kept for one in self.engine.uploaders.values()),
            "cut_readers": sum(one.keeper.cut for one in self.engine.uploaders.values()),
            "lent": None if self._lending is None else self._lending.status(),
            **(self._transport.status() if self._transport is not None else {}),
            "cache": asdict(self.engine.cache.stats()),
            "routes": [
                {"path": route.path, "backend": route.backend.identity, "hidden_names": route.hidden,
                 "remembered_bytes": route.memory.weight,
                 "recalled": route.recalled, "corrupt_answers": route.backend.counters.corrupt_answers,
                 "buffered": route.backend.counters.buffered,
                 "requests": dict(route.backend.counters.requests)} for route in self.engine.routes
            ],
            "stacks": {identity: stack.status() for identity, stack in self.engine.stacks.items()},
        }  # fmt: skip

    def _pending(self) -> list[dict[str, Any]]:
        journal = self.engine.journal
        return [
            _described(row) | {"key": row.key, "size": row.size}
            for identity in self._stores()
            for row in journal.below(identity, "")
        ]

    def _failing(self) -> list[dict[str, Any]]:
        journal = self.engine.journal
        return [_described(row) for identity in self._stores() for row in journal.failing(identity, FAILING_SHOWN)]

    def _conflicts(self) -> list[dict[str, Any]]:
        """What other writers won since this daemon began."""
        uploaders = self.engine.uploaders.items()
        return [{"store": store, **asdict(one)} for store, uploader in uploaders for one in uploader.counters.lost]

    def _out_of_reach(self) -> dict[str, float]:
        """Stores that do not answer, and since when."""
        outages = {identity: uploader.backend.outage for identity, uploader in self.engine.uploaders.items()}
        return {identity: outage.since for identity, outage in outages.items() if outage.active}

    def _stores(self) -> list[str]:
        return sorted({route.backend.identity for route in self.engine.routes})

    def _health(self) -> dict[str, Any]:
        uploaders = self.engine.uploaders.items()
        return {
            "state": self.state,
            "stores": {
                identity: {
                    "last_error": uploader.counters.last_error,
                    "out_of_reach_since": uploader.backend.outage.since,
                    "outages": uploader.backend.outage.count,
                }
                for identity, uploader in uploaders
            },
        }


def _described(row: Pending) -> dict[str, Any]:
    """One row for ``status`` and ``pending.json``."""
    return {
        "store": row.store, "path": row.path, "action": str(row.action), "attempts": row.attempts, "error": row.error
    }  # fmt: skip


def _source(config: Config) -> str:
    """What /proc/mounts shows: the URL, or that it is a whole tree."""
    if len(config.route) == 1:
        return config.backend[config.route[0].tiers[0]].url
    return "fsdriver"


def refuse_second_mount(roots: Collection[str], directory: str, state: Path) -> None:
    """Two daemons over one journal and one store would both hold the same files open for writing.

    Raises
    ------
    ConfigError
        Another daemon with this state folder serves one of these roots.
    """
    own = socket_path(directory)
    for path in own.parent.glob("mount-*.sock"):
        if path == own:
            continue
        try:
            other = ask(path, directory, "status", 2.0, {})
        except OSError as error:
            log.debug("%s answers nothing: %s", path, error)
            continue
        if other.get("state") != "mounted" or other["state_dir"] != str(state):
            continue
        if not set(roots).isdisjoint(other["roots"]):
            raise ConfigError(
                f"{other['source']} is mounted at {other['mountpoint']} already; bind that directory here "
                f"(mount --bind {other['mountpoint']} {directory}), or unmount it first",
                directory,
            )
