"""What this process remembers of directories, for how long, and how processes tell each other that it is out of date.

Three things make remembered names invalid: their time to live, a bump of the directory's epoch by another process of this
host (shared memory, see `fsdriver.cache.Epochs`), and `forget`. Our own changes are applied in place, so that they cost no
new listing.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from fsdriver.attributes import AttributeObject
from fsdriver.cache import Epochs
from fsdriver.entry import Entry, Kind
from fsdriver.metadata.directory import MISSING, NEVER, Directory, Known, Missing, Question
from fsdriver.metadata.telling import Telling
from fsdriver.names import split

LIMIT: Final = 64 << 20
"""Bytes that the memory of one route may take by default."""
PAGE: Final = 1000
"""Entries of a page of a listing."""
_CENTURIES: Final = 1e10
"""Seconds that stand for an infinite time to live: what was never told is older than that."""


class Directories:
    """The remembered directories of one route.

    Parameters
    ----------
    epochs : Epochs
        Shared with all processes of this uid.
    epoch_name : callable
        Route path of a directory → its name among all processes.
    ttl, negative_ttl : float
        Seconds that entries and absences are trusted.
    limit : int
        Bytes, over all directories. A single directory may be larger while its listing is fresh.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        epochs: Epochs,
        epoch_name: Callable[[str], str],
        ttl: float,
        negative_ttl: float,
        clock: Callable[[], float],
        limit: int = LIMIT,
    ) -> None:
        self.ttl = min(ttl, _CENTURIES)
        self.negative_ttl = negative_ttl
        self.lock = threading.RLock()
        self.clock = clock
        self._epochs = epochs
        self._epoch_name = epoch_name
        self._limit = limit
        self._directories: OrderedDict[str, Directory] = OrderedDict()
        self._weight = 0
        self._forgotten = NEVER
        self._telling = Telling(epochs)

    def current(self, path: str) -> Directory | None:
        """The directory, unless another process changed it since it was learned; call with the lock held."""
        directory = self._directories.get(path)
        if directory is not None and directory.epoch != self._epochs.value_at(directory.slot):
            self._forget(path)
            return None
        if directory is not None:
            self._directories.move_to_end(path)
        return directory

    @property
    def weight(self) -> int:
        """About how many bytes of memory all this takes."""
        return self._weight

    def at(self, path: str) -> Directory:
        """The directory's memory, made if there is none."""
        with self.lock:
            directory = self.current(path)
            if directory is None:
                slot = self._epochs.slot(self._epoch_name(path))
                directory = self._directories[path] = Directory(slot, self._epochs.value_at(slot))
                self._weigh(directory)
            return directory

    def peek(self, path: str) -> Known | None:
        """The entry if it is remembered and fresh, `MISSING` if its absence is, None if the store must be asked."""
        found = self.look(path)
        return found[0] if isinstance(found, tuple) else found

    def look(self, path: str) -> tuple[Entry, float] | Missing | None:
        """As `peek`, but an entry with how many seconds longer it may be trusted."""
        now = self.clock()
        with self.lock:
            if path == "":
                return self._own(path, now)
            parent, name = split(path)
            directory = self.current(parent)
            if directory is None:
                return None
            entry = directory.entries.get(name)
            if entry is not None:
                left = self.ttl - (now - directory.told_at(name))
                if left < 0:
                    return None
                if entry.kind is Kind.DIRECTORY and (own := self._own(path, now)) is not None:
                    return own[0], min(own[1], left)
                return None if name in directory.unverified else (entry, left)
            if now - directory.complete_at <= self.ttl or now - directory.absent.get(name, NEVER) <= self.negative_ttl:
                return MISSING
            return None

    def last(self, path: str) -> Known | None:
        """What was known last of a path, however long ago; None: nothing, or no answer was ever to be trusted (ttl 0)."""
        with self.lock:
            if not self.ttl:
                return None
            own = self.current(path)
            if path == "" or (own is not None and own.own is not None):
                return None if own is None else own.own
            parent, name = split(path)
            directory = self.current(parent)
            if directory is None or (entry := directory.entries.get(name)) is not None:
                return None if directory is None else entry
            return MISSING if directory.complete_at > NEVER or name in directory.absent else None

    def was_listed(self, path: str) -> bool:
        """`last_listing` would tell, or nothing that is told may be kept (ttl 0)."""
        with self.lock:
            directory = self.current(path)
            return not self.ttl or (directory is not None and directory.complete_at > NEVER)

    def last_listing(self, path: str) -> dict[str, Entry] | None:
        """All entries of a directory as they were known last, however long ago; None as of `last`."""
        with self.lock:
            directory = self.current(path) if self.ttl else None
            return None if directory is None or directory.complete_at == NEVER else dict(directory.entries)

    def look_many(self, path: str, wanted: Sequence[str]) -> tuple[list[Entry | None], float]:
        """Fresh entries of names of one directory (None: must be asked for), and how many seconds they may be trusted."""
        now = self.clock()
        with self.lock:
            directory = self.current(path)
            left = NEVER if directory is None else self.ttl - (now - directory.listed_at)
            if directory is None or left < 0:
                return [None] * len(wanted), 0.0
            found: list[Entry | None] = [directory.entries.get(name) for name in wanted]
            for at, entry in enumerate(found):
                if entry is not None and (entry.kind is Kind.DIRECTORY or directory.unverified):
                    name = wanted[at]
                    known = self.look(f"{path}/{name}" if path else name)
                    found[at] = known[0] if isinstance(known, tuple) else None
                    left = min(left, known[1]) if isinstance(known, tuple) else left
            return found, left

    def lapsed(self, path: str) -> bool:
        """A directory was remembered as a whole until its time to live ended, and one page of a listing would hold it."""
        with self.lock:
            directory = self.current(path)
            return (
                directory is not None
                and 0 < self.ttl < self.clock() - directory.complete_at < _CENTURIES
                and len(directory.entries) <= PAGE
            )

    def is_complete(self, path: str) -> bool:
        """`listing` would tell."""
        with self.lock:
            return self._whole(path) is not None

    def listing(self, path: str) -> dict[str, Entry] | None:
        """All entries of a directory if they are remembered and fresh."""
        found = self.state(path)
        return None if found is None else found[1]

    def state(self, path: str) -> tuple[object, dict[str, Entry]] | None:
        """As `listing`, with the generation: while `generation` tells the same, so does this."""
        with self.lock:
            directory = self._whole(path)
            return None if directory is None else (directory.generation, dict(directory.entries))

    def generation(self, path: str) -> tuple[object, float]:
        """What stands for the present listing of a directory, and how many seconds longer; None if there is no fresh one."""
        with self.lock:
            directory = self.current(path)
            left = NEVER if directory is None else self.ttl - (self.clock() - directory.complete_at)
            return (None, 0.0) if directory is None or left <= 0 else (directory.generation, left)

    def subdirectories(self, path: str) -> int | None:
        """How many directories a directory holds, if its listing is remembered and fresh."""
        with self.lock:
            directory = self._whole(path)
            return None if directory is None else directory.subdirectories

    def _whole(self, path: str) -> Directory | None:
        """The directory, if all its entries are remembered and fresh."""
        directory = self.current(path)
        return directory if directory is not None and self.clock() - directory.complete_at <= self.ttl else None

    def learn(self, path: str, entry: Entry | None, asked: float, started: Directory | None = None) -> Entry | None:
        """The store told about one path; None: there is nothing.

        Parameters
        ----------
        asked : float
            When the question was put: what was changed here since then is newer than the answer.
        started : Directory, optional
            `at` of the parent when the question was put: if another process has changed the directory since, the answer
            may lack that and is not remembered.

        Returns
        -------
        Entry or None
            What is true now.
        """
        now = self.clock()
        with self.lock:
            if path:
                parent, name = split(path)
                directory = self.at(parent)
                if started is not None and directory is not started:
                    return entry
                if directory.absent.get(name, NEVER) > asked:
                    return None
                if name in directory.entries and directory.told_at(name) > asked and name not in directory.unverified:
                    return directory.entries[name]
                self._set(directory, name, entry, now)
            if entry is not None and entry.kind is Kind.DIRECTORY:
                own = self.at(path)
                own.own, own.own_at = entry, now
            elif path and entry is None:
                self._drop(path)
            self._trim(split(path)[0])
            return entry

    def tells_directory(self, path: str) -> bool:
        """The directory above is known to have a subdirectory of that name."""
        parent, name = split(path)
        with self.lock:
            directory = self.current(parent)
            entry = None if directory is None else directory.entries.get(name)
            return (
                directory is not None
                and entry is not None
                and entry.kind is Kind.DIRECTORY
                and self.clock() - directory.told_at(name) <= self.ttl
            )

    def learn_own(self, path: str, entry: Entry, asked: float) -> Entry | None:
        """The store told attributes of a directory that `tells_directory` knows; what is true now, None: ask again."""
        with self.lock:
            if not self.tells_directory(path):
                return None
            directory = self.at(path)
            if directory.own is None or directory.own_at <= asked:
                directory.own, directory.own_at = entry, self.clock()
            return directory.own

    def learn_attributes(self, path: str, directory: Directory, stored: AttributeObject, asked: float) -> None:
        """The store told the attribute object of a directory (`at`)."""
        with self.lock:
            directory.attributes, directory.attributes_at = stored, asked
            if self._directories.get(path) is directory:
                self._weigh(directory)
                self._trim(path)

    def begin_listing(self, path: str) -> Directory:
        """A listing starts: from now on what this process changes is noted, to be applied on top of it."""
        with self.lock:
            directory = self.at(path)
            directory.changes = {}
            return directory

    def install(
        self,
        path: str,
        entries: dict[str, Entry],
        unverified: set[str],
        started: Directory,
        since: float | None = None,
    ) -> bool:
        """A whole listing arrived; what this process changed while it was under way is applied on top.

        Parameters
        ----------
        since : float, optional
            When the oldest answer in it was asked for; now if not given.

        Returns
        -------
        bool
            False if another process changed the directory meanwhile: the listing may lack that and is not remembered.
        """
        with self.lock:
            changes, started.changes = started.changes or {}, None
            if self.current(path) is not started:
                return False
            now = self.clock()
            self._fill(started, entries, unverified, now if since is None else since)
            for name, entry in changes.items():
                self._set(started, name, entry, now)
            self._trim(path)
            return True

    def ask(self) -> Question:
        """A question is about to be put whose answer may be of many directories; see `install_answer`."""
        return Question(self.clock(), self._epochs.snapshot())

    def install_answer(
        self, path: str, entries: dict[str, Entry], unverified: set[str], question: Question, since: float
    ) -> bool:
        """A whole listing arrived that was not asked for by name; what was learned later stands.

        Returns
        -------
        bool
            False if the directory was changed, listed or forgotten since the question was put.
        """
        with self.lock:
            if self._forgotten >= question.at or self._epochs.moved_since(question.epochs, self._epoch_name(path)):
                return False
            directory = self.at(path)
            if directory.complete_at >= question.at or directory.changes is not None:
                return False
            later = {
                name: directory.entries.get(name)
                for name in {*directory.learned, *directory.absent}
                if directory.told_at(name) > question.at or directory.absent.get(name, NEVER) > question.at
            }
            self._fill(directory, entries, unverified, min(question.at, since))
            for name, entry in later.items():
                self._set(directory, name, entry, self.clock())
            self._trim(path)
            return True

    def _fill(self, directory: Directory, entries: dict[str, Entry], unverified: set[str], when: float) -> None:
        directory.fill(entries, unverified, when)
        self._weigh(directory)

    def change(self, path: str, entry: Entry | None) -> None:
        """A path was changed here: remember it, and tell the other processes."""
        now = self.clock()
        with self.lock:
            if entry is not None and entry.kind is Kind.DIRECTORY:
                own = self.at(path)
                own.own, own.own_at = entry, now
                self._telling.changed(own)
            elif entry is None:
                self._drop(path)
            if path:
                parent, name = split(path)
                directory = self.at(parent)
                if directory.changes is not None:
                    directory.changes[name] = entry
                self._set(directory, name, entry, now)
                self._telling.changed(directory)
                self._trim(parent)

    def touch(self, path: str) -> None:
        """Tell other processes that a directory changed in a way this process already knows."""
        with self.lock:
            self._telling.changed(self.at(path))

    def made_empty(self, path: str, entry: Entry) -> None:
        """A directory was just made here: its listing is known to be empty."""
        with self.lock:
            self.change(path, entry)
            directory = self.at(path)
            self._fill(directory, {}, set(), self.clock())
            directory.attributes, directory.attributes_at = AttributeObject(), self.clock()

    def forget(self, path: str, *, below: bool = False) -> None:
        """Remember nothing of a directory (and, with ``below``, of all under it); answers under way are too old."""
        with self.lock:
            self._forgotten = self.clock()
            self._forget(path, below=below)

    def _forget(self, path: str, *, below: bool = False) -> None:
        with self.lock:
            prefix = f"{path}/" if path else ""
            doomed = [p for p in self._directories if p == path or p.startswith(prefix)] if below else [path]
            for p in doomed:
                if (directory := self._directories.pop(p, None)) is not None:
                    self._weight -= directory.weighed

    def forget_entry(self, path: str) -> None:
        """Remember nothing of one path: neither its entry nor, if it is a directory, its listing."""
        with self.lock:
            parent, name = split(path)
            directory = self._directories.get(parent)
            if directory is not None and path:
                directory.forget(name)
                self._weigh(directory)
            self.forget(path)

    @contextlib.contextmanager
    def telling_later(self) -> Iterator[None]:
        """Tell other processes when the block has ended; one that fails changed nothing, and what it touched is forgotten."""
        with self.lock, self._telling.later(self._undo):
            yield

    def _undo(self, changed: Collection[Directory]) -> None:
        touched = {id(directory) for directory in changed}
        for path in [path for path, known in self._directories.items() if id(known) in touched]:
            self.forget(path)

    def _own(self, path: str, now: float) -> tuple[Entry, float] | None:
        directory = self.current(path)
        left = NEVER if directory is None else self.ttl - (now - directory.own_at)
        return None if directory is None or directory.own is None or left < 0 else (directory.own, left)

    def _set(self, directory: Directory, name: str, entry: Entry | None, now: float) -> None:
        directory.put(name, entry, now)
        self._weigh(directory)

    def _drop(self, path: str) -> None:
        if path in self._directories:
            self._forget(path, below=True)

    def _weigh(self, directory: Directory) -> None:
        weight = directory.weight
        self._weight += weight - directory.weighed
        directory.weighed = weight

    def _trim(self, keep: str) -> None:
        """Forget what was not needed for longest, until the rest fits; ``keep`` last, and not while it is fresh."""
        while self._weight > self._limit:
            idle = (path for path, directory in self._directories.items() if directory.changes is None and path != keep)
            oldest = next(idle, None)
            if oldest is not None:
                self._forget(oldest)
                continue
            kept = self._directories.get(keep)
            if kept is not None and kept.changes is None and self.clock() - kept.complete_at > self.ttl:
                self._forget(keep)
            return
