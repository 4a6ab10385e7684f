"""Noticing a walk, directory after directory as find(1) goes, and answering it from flat listings.

A directory costs one request, a flat page of a thousand keys costs the same and may tell of many directories. The listing of
the directory above says which come next, so several flat pages are asked for at once, each from a subdirectory on. Whatever
is not told completely that way is listed on its own: a store whose order is another one only makes this less useful.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from fsdriver import names
from fsdriver.backends.base import ObjectInfo
from fsdriver.backends.store import Store
from fsdriver.entry import Kind
from fsdriver.metadata.directories import Directories
from fsdriver.metadata.directory import Question
from fsdriver.metadata.levels import Level, levels_below
from fsdriver.names import split

log = logging.getLogger(__name__)

PAGE: Final = 1000
AHEAD: Final = 16
"""Flat pages asked for before the walk has come there."""
AT_ONCE: Final = 4
PAGES_OF_STRETCH: Final = 3
WORTH_IT: Final = 2
"""Directories that a flat page must tell completely, else those of this parent are listed one by one."""
REST: Final = 60.0
"""Seconds until it is tried again."""
_WATCHED: Final = 256


class Walked(Protocol):
    """What is asked of the route."""

    backend: Store
    memory: Directories

    def directory_key(self, path: str) -> str:
        """Key prefix of a directory."""

    def nothing_owed(self, path: str) -> bool:
        """The journal has nothing below a directory."""

    async def install_levels(self, levels: Sequence[Level], question: Question) -> None:
        """Remember complete directories."""


@dataclass(slots=True)
class _Walk:
    """Walking the subdirectories of one directory.

    Attributes
    ----------
    generation : object
        Of the listing that ``children`` are from.
    children : list of str
        Names of the subdirectories in the order of their keys; ``position`` is its inverse, ``by_segment`` that of keys.
    under_way : dict of str to Task
        What is being asked for, by the name of the subdirectory.
    dense_until : float
        The subdirectories are too large for this.
    """

    generation: object
    children: list[str]
    position: dict[str, int]
    by_segment: dict[str, int]
    under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    dense_until: float = 0.0


class Walks:
    """The walks of one route. Used on the event loop only.

    Parameters
    ----------
    route : Walked
    """

    def __init__(self, route: Walked) -> None:
        self._route = route
        self._walks: dict[str, _Walk] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def reach(self, path: str) -> bool:
        """A directory is about to be listed; True: flat pages may have told it."""
        if not self._route.backend.capabilities.flat_list:
            return False
        parent, name = split(path)
        walk, memory = self._walk(parent), self._route.memory
        at = None if walk is None else walk.position.get(name)
        if walk is None or at is None or walk.dense_until > memory.clock():
            return False
        if name not in walk.under_way:
            follows = at == 0 or memory.is_complete(_below(parent, walk.children[at - 1]))
            if not follows:
                return False
            self._spawn(walk, range(at, len(walk.children)), self._begin(walk, parent, at))
        await asyncio.wait([walk.under_way[name]])
        return True

    def _walk(self, parent: str) -> _Walk | None:
        """The walk below a directory whose listing is remembered."""
        memory, before = self._route.memory, self._walks.pop(parent, None)
        with memory.lock:
            above = memory.current(parent)
            if above is None or not memory.is_complete(parent):
                return None
            walk = before
            if walk is None or walk.generation is not above.generation:
                directories = [name for name, entry in above.entries.items() if entry.kind is Kind.DIRECTORY]
                keyed = sorted((names.escape(name), name) for name in directories)
                walk = _Walk(
                    above.generation,
                    [name for _, name in keyed],
                    {name: at for at, (_, name) in enumerate(keyed)},
                    {segment: at for at, (segment, _) in enumerate(keyed)},
                )
                if before is not None:
                    walk.under_way, walk.dense_until = before.under_way, before.dense_until
        self._walks[parent] = walk
        while len(self._walks) > _WATCHED:
            del self._walks[next(iter(self._walks))]
        return walk

    # -- asking ------------------------------------------------------------------------------------------------------

    def _spawn(self, walk: _Walk, stretch: range, work: Coroutine[Any, Any, None]) -> None:
        """Ask for some subdirectories; whoever lists one of them waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        wanted = [walk.children[at] for at in stretch]
        walk.under_way.update(dict.fromkeys(wanted, task))
        task.add_done_callback(partial(self._ended, walk, wanted))

    def _ended(self, walk: _Walk, wanted: Sequence[str], task: asyncio.Task[None]) -> None:
        for name in wanted:
            if walk.under_way.get(name) is task:
                del walk.under_way[name]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            walk.dense_until = self._route.memory.clock() + REST
            log.info("a flat listing failed, each directory is listed on its own: %s", error)

    async def _begin(self, walk: _Walk, parent: str, at: int) -> None:
        """One page from a subdirectory on; the sizes it tells decide how to ask for those ahead."""
        stretch = _Stretch(self._route, parent)
        if not self._route.nothing_owed(parent):
            return
        more = await stretch.read(self._route.directory_key(_below(parent, walk.children[at])), PAGE)
        told = stretch.complete(more)
        sizes = [len(objects) for segment, objects in told if segment in walk.by_segment]
        if more and len(sizes) < WORTH_IT:
            walk.dense_until = self._route.memory.clock() + REST
        elif more:
            following = max(walk.by_segment.get(segment, at) for segment, _ in told) + 1
            several = max(1, (PAGE - 1) * len(sizes) // sum(sizes))
            # Directories of one size end where it is expected: one key more shows that they do.
            limit = several * sizes[0] + 1 if min(sizes) == max(sizes) else PAGE
            last = min(len(walk.children), following + several * AHEAD)
            for first in range(following, last, several):
                part = range(first, min(first + several, last))
                self._spawn(walk, part, self._go_on(walk, parent, part, limit))
        await stretch.install(walk, told)

    async def _go_on(self, walk: _Walk, parent: str, part: range, limit: int) -> None:
        async with self._slots:
            stretch = _Stretch(self._route, parent)
            if not self._route.nothing_owed(parent):
                return
            after = self._route.directory_key(_below(parent, walk.children[part.start]))
            for _ in range(PAGES_OF_STRETCH):
                more = await stretch.read(after, limit)
                told = stretch.complete(more)
                await stretch.install(walk, told)
                reached = max((walk.by_segment.get(segment, -1) for segment, _ in told), default=-1)
                if not more or reached >= part.stop - 1:
                    return
                after, limit = stretch.last, PAGE


class _Stretch:
    """Flat pages that follow one another, cut into the subdirectories of one directory.

    What is owed to those is looked up after this was made and before the first page is read: later changes are noticed.
    """

    def __init__(self, route: Walked, parent: str) -> None:
        self._route = route
        self._parent = parent
        self._prefix = route.directory_key(parent)
        self._question: Question = route.memory.ask()
        self._groups: list[tuple[str, list[ObjectInfo]]] = []
        self.last = ""

    async def read(self, start_after: str, limit: int) -> bool:
        """One page more; whether others follow."""
        page, more = await self._route.backend.list_some(self._prefix, start_after=start_after, limit=limit)
        groups, inside = self._groups, "\0"
        if groups:
            inside = f"{self._prefix}{groups[-1][0]}/"
        skip = len(self._prefix)
        for info in page.objects:
            key = info.key
            if not key.startswith(inside):
                segment, slash, _ = key[skip:].partition("/")
                # An object of the directory itself only ends the group before it.
                groups.append((segment if slash else "", []))
                inside = f"{self._prefix}{segment}/" if slash else "\0"
            groups[-1][1].append(info)
        if page.objects:
            self.last = page.objects[-1].key
        return more

    def complete(self, more: bool) -> list[tuple[str, list[ObjectInfo]]]:
        """Key segments and objects of the subdirectories that were told to their end; taken out."""
        told, self._groups = (self._groups[:-1], self._groups[-1:]) if more else (self._groups, [])
        return [group for group in told if group[0]]

    async def install(self, walk: _Walk, told: Sequence[tuple[str, list[ObjectInfo]]]) -> None:
        """Remember what was told of known subdirectories."""
        levels: list[Level] = []
        for segment, objects in told:
            at = walk.by_segment.get(segment)
            if at is not None:
                levels += levels_below(_below(self._parent, walk.children[at]), f"{self._prefix}{segment}", objects)
        if levels:
            await self._route.install_levels(levels, self._question)


def _below(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name
