"""When attribute objects are sent: those of quiet directories soon, those of busy ones now and then, awaited ones at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from fsdriver.attributes import Record
from fsdriver.backends.retry import RetryPolicy
from fsdriver.errors import FsdriverError
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.waiting import Waiters

LOOK: Final = 0.02
"""Seconds between two looks at which attribute objects are owed something."""
DELAY: Final = 1.0
"""Seconds that an attribute object waits for the content of its directory when all is to be sent."""
BUSY_DELAY: Final = 5.0
"""Seconds an attribute object waits for more changes while content of its directory is still being sent."""
MARKED_QUIET: Final = 5.0
"""Seconds without a change after which a marked attribute object gets its records and loses the mark: two requests for
whatever was changed in between."""
MARKED_BUSY: Final = 30.0
"""`BUSY_DELAY` of a marked one: nobody lacks anything but the time of a request for each object."""
RETRY: Final = RetryPolicy(base=1.0, cap=60.0)
"""When one that failed is sent again."""


class Memory(Protocol):
    """What is remembered of a route's names."""

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Held while what is owed and what is remembered change in one step."""


class AttributeStore(Protocol):
    """What the uploader needs of the route that wrote a row: its attribute objects."""

    @property
    def memory(self) -> Memory:
        """What is remembered of its names; its lock makes a completion one step."""

    def directory_key(self, path: str) -> str:
        """Key prefix of a directory."""

    def own_record(self, directory: str) -> Record | None:
        """What is remembered of a directory's own attributes."""

    @property
    def lazy(self) -> bool:
        """Its attribute objects may follow later."""

    @property
    def marked(self) -> Mapping[str, float]:
        """Directories whose attribute object says so, and when they were last changed (`time.monotonic`)."""

    async def flush_attributes(self, directory: str, *, mark: bool) -> None:
        """Merge what the journal owes to one attribute object."""


class Flusher:
    """The attribute objects of one store. Used on the event loop only.

    Parameters
    ----------
    store : str
        Identity of the backend.
    journal : Journal
    routes : dict
        By key prefix; those that another process has are made and added when they are first met.
    make_route : callable
        Called as ``make_route(root)``.
    waiters : Waiters
        They are told under ``<root>|<directory>``.
    spawn : callable
        Runs a task that the end of the uploader waits for.
    """

    def __init__(
        self,
        store: str,
        journal: Journal,
        routes: dict[str, AttributeStore],
        make_route: Callable[[str], AttributeStore],
        waiters: Waiters,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._routes = routes
        self._make_route = make_route
        self._waiters = waiters
        self._spawn = spawn
        self._flushing: set[tuple[str, str]] = set()
        self._owed_since: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}
        self._next = 0.0

    def look(self, *, sending: bool, draining: bool) -> float | None:
        """Send the attribute objects of directories that are quiet; of a busy one now and then.

        Parameters
        ----------
        sending : bool
            Rows are being carried out.
        draining : bool
            All is to be sent.

        Returns
        -------
        float or None
            Seconds after which to look again; None if there is no need.
        """
        clock = asyncio.get_running_loop().time
        now = clock()
        if now < self._next and (sending or not draining):
            return None
        owed = set(self._journal.attributes.directories(self._store))
        busy = self._journal.parents(self._store) if owed else ()
        patient = not draining and all(self._route(root).lazy for root, _ in owed)
        self._owed_since = {key: self._owed_since.get(key, now) for key in owed}
        for (root, directory), since in self._owed_since.items():
            route = self._route(root)
            quiet = route.directory_key(directory) not in busy and (draining or _is_quiet(route, directory))
            marked = directory in route.marked
            patience = DELAY if draining else MARKED_BUSY if marked else BUSY_DELAY
            if quiet or now - since >= patience:
                self._begin(root, directory, mark=not quiet and marked)
        # Looking takes longer the more is owed: it stays a small part of the time.
        pause = max(DELAY / 4 if patient else LOOK, 20 * (clock() - now))
        self._next = now + pause
        return pause if owed or sending else None

    def remove_marks(self, *, draining: bool) -> None:
        """Marks that this process left in attribute objects go when nothing changes there any more."""
        for root, route in list(self._routes.items()):
            for directory in list(route.marked):
                if (draining or _is_quiet(route, directory)) and not self._journal.has_children(
                    self._store, route.directory_key(directory)
                ):
                    self._begin(root, directory, mark=False)

    @property
    def sending(self) -> bool:
        """Attribute objects are being sent."""
        return bool(self._flushing)

    def retry_now(self) -> None:
        """What failed may be tried again at once."""
        self._failures.clear()

    def urge(self, root: str, directory: str) -> None:
        """Somebody waits for an attribute object: send it now, also if that has failed a moment ago."""
        self._failures.pop((root, directory), None)
        self._begin(root, directory, mark=True)

    def _route(self, root: str) -> AttributeStore:
        if root not in self._routes:
            self._routes[root] = self._make_route(root)
        return self._routes[root]

    def _begin(self, root: str, directory: str, *, mark: bool) -> None:
        _, not_before = self._failures.get((root, directory), (0, 0.0))
        if (root, directory) not in self._flushing and time.monotonic() >= not_before:
            self._flushing.add((root, directory))
            self._spawn(self._flush(self._route(root), root, directory, mark=mark))

    async def _flush(self, route: AttributeStore, root: str, directory: str, *, mark: bool) -> None:
        key = f"{root}|{directory}"
        try:
            await route.flush_attributes(directory, mark=mark)
            self._waiters.forget(key)
            self._owed_since.pop((root, directory), None)
            self._failures.pop((root, directory), None)
        except FsdriverError as error:
            failures, _ = self._failures.get((root, directory), (0, 0.0))
            delay = RETRY.delay(failures + 1)
            self._failures[root, directory] = failures + 1, time.monotonic() + delay
            self._waiters.failed(key, error)
        finally:
            self._flushing.discard((root, directory))
            await self._waiters.advanced()


def _is_quiet(route: AttributeStore, directory: str) -> bool:
    """Nobody is making changes to a directory one by one, each of which would send its attribute object again."""
    return time.monotonic() - route.marked.get(directory, float("-inf")) >= MARKED_QUIET
