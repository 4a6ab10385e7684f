"""Commands on the cache and the tiers of a mount: ``warm``, ``evict``, ``pin``, ``move``, …; paths are those of the tree."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from fsdriver.routes import caching, tiering
from fsdriver.routes.verifying import verify

if TYPE_CHECKING:
    from fsdriver.routes.tree import Tree

    from .control import Answer, Command
    from .filesystem import FileSystem


RELEASE_SECONDS: Final = 0.2
"""The kernel tells the daemon of a close(2) after that has returned: what is open may just have been closed."""


class CacheCommands:
    """See the module.

    Parameters
    ----------
    fs : FileSystem
    tree : Tree
    """

    def __init__(self, fs: FileSystem, tree: Tree) -> None:
        self._fs = fs
        self._tree = tree

    def commands(self) -> Mapping[str, Command]:
        """By name, for the control socket."""
        return {
            "warm": self._warm,
            "verify": self._verify,
            "evict": self._evict,
            "pin": self._pin,
            "unpin": self._unpin,
            "move": self._move,
            "explain": self._explain,
            "sweep": self._sweep,
        }

    async def _warm(self, request: Mapping[str, Any]) -> Answer:
        return {"fetched": await caching.warm(*self._tree.resolve(str(request["path"])))}

    async def _verify(self, request: Mapping[str, Any]) -> Answer:
        route, path = self._tree.resolve(str(request["path"]))
        return asdict(await verify(route, path, everything=bool(request["bytes"]), repair=bool(request["repair"])))

    async def _move(self, request: Mapping[str, Any]) -> Answer:
        route, path = self._tree.resolve(str(request["path"]))
        return await tiering.move(
            route, path, str(request["tier"]), keep=bool(request["keep"]), pin=bool(request["pin"])
        )  # fmt: skip

    async def _explain(self, request: Mapping[str, Any]) -> Answer:
        return await tiering.explain(*self._tree.resolve(str(request["path"])))

    async def _sweep(self, request: Mapping[str, Any]) -> Answer:
        return await tiering.sweep(self._tree.routes, dry_run=bool(request["dry_run"]))

    async def _evict(self, request: Mapping[str, Any]) -> Answer:
        first = await self._evict_now(str(request["path"]))
        if not first.open:
            return asdict(first)
        await asyncio.sleep(RELEASE_SECONDS)
        then = await self._evict_now(str(request["path"]))
        return asdict(replace(then, files=first.files + then.files, bytes=first.bytes + then.bytes))

    async def _evict_now(self, path: str) -> caching.Eviction:
        done = caching.Eviction()
        self._fs.open_files.unpark_all()
        self._fs.open_files.hold_all()
        for route, inside in self._tree.covering(path):
            done += await caching.evict(route, inside)
        return done

    async def _pin(self, request: Mapping[str, Any]) -> Answer:
        return await self._set_pins(request, pinned=True)

    async def _unpin(self, request: Mapping[str, Any]) -> Answer:
        return await self._set_pins(request, pinned=False)

    async def _set_pins(self, request: Mapping[str, Any], *, pinned: bool) -> Answer:
        places = [self._tree.resolve(str(path)) for path in request["paths"]]
        return {"files": await caching.set_pins(places, pinned=pinned)}
