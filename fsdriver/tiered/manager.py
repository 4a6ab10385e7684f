"""The manager: put and get by name, over memory and disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from fsdriver.cache import ARCCache, Checksum, DiskCache, ObjectKey
from fsdriver.cache.heat import Uses, heat

from .items import Item, Items
from .metrics import Metrics
from .report import Hits, report
from .settings import TieredSettings

_STORE: Final = "tiered"
"""In place of the identity of a bucket: these items are of no bucket."""
_EVICTED_SHARE: Final = 0.1
"""Of the memory tier, that `TieredCacheManager.evict` frees unless it is told how much."""


@dataclass(frozen=True, slots=True)
class _Content:
    version: str
    content: bytes

    def size(self) -> int:
        return len(self.content)


class TieredCacheManager:
    """Content by name: hot items in memory (ARC), all of them on disk, where they survive a restart.

    The interface and the keys of ``config`` are those of ipfs_kit_py's class of this name; what lies below is the disk
    cache of this project, so that several processes may share one directory. Thread-safe. Close it, or use it as a
    context manager.

    Parameters
    ----------
    config : mapping, optional
        See `TieredSettings`.
    clock : callable
        Seconds since the epoch.
    timer : callable
        Seconds, for latencies.

    Raises
    ------
    ConfigError
        A key of ``config`` is wrong, or the directory cannot be used.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = TieredSettings.of(config)
        self._clock = clock
        self._directory = self.settings.local_cache_path.expanduser()
        self._lock = threading.RLock()
        self._memory: ARCCache[str, _Content] = ARCCache(
            self.settings.memory_cache_size,
            _Content.size,
            maxitem=self.settings.max_item_size,
            ghosts=self.settings.arc.ghost_list_size,
            weights=self.settings.arc.weights,
            clock=clock,
        )
        self._mapped: dict[str, mmap.mmap] = {}
        self._hits = Hits()
        self._metrics = Metrics(timer)
        self._closed = False
        # Its bound is one that it never meets: which items go is decided here, by what they are worth.
        self._disk = DiskCache(self._directory, size=2 * self.settings.local_cache_size, min_free=0, clock=clock)
        self._items = Items(self._directory / "items.db")
        self._drop([item for item in self._items.all() if not self._disk.contains(_key(item))])

    # -- content -----------------------------------------------------------------------------------------------------

    def put(self, key: str, content: bytes, metadata: Mapping[str, Any] | None = None) -> bool:
        """Store content under a name, in place of what was there.

        Parameters
        ----------
        key : str
        content : bytes
        metadata : mapping, optional
            JSON values, kept with it; ``type`` is counted in `get_stats`.

        Returns
        -------
        bool
            Whether any tier took it. False for what is not bytes, and for more bytes than any tier takes; what was there
            stays then.

        Raises
        ------
        TypeError
            ``metadata`` has values that JSON has not.
        OSError
            The disk failed; what was there stays.
        """
        if not isinstance(content, bytes):
            return False
        if len(content) > max(self.settings.local_cache_size, self._largest_in_memory):
            return False
        json.dumps(metadata)
        with self._opened("put"):
            now = self._clock()
            version = hashlib.sha256(content).hexdigest()
            item = Item(key, version, len(content), now, Uses(now, now), metadata)
            with self._metrics.moving("disk", "written") as moved:
                on_disk = self._put_on_disk(item, content)
                moved.count += on_disk
                moved.bytes += on_disk * item.size
            return self._remember(key, content, version) or on_disk

    def get(self, key: str) -> bytes | None:
        """The content, or None."""
        with self._opened("get"):
            item = self._items.get(key)
            if item is not None:
                self._items.use(item, self._clock())
                self._forget_other_versions(item)
            with self._metrics.moving("memory", "read") as moved:
                known: _Content | None = self._memory.get(key)
                if known is not None:
                    self._hits.memory += 1
                    moved.count += 1
                    moved.bytes += known.size()
                    return known.content
            content = None if item is None else self._read(item)
            if item is None or content is None:
                self._hits.miss += 1
                return None
            self._hits.disk += 1
            self._remember(key, content, item.version)
            return content

    def get_mmap(self, key: str) -> mmap.mmap | None:
        """The content on disk, mapped read-only; it stays readable whatever becomes of the item.

        Returns
        -------
        mmap.mmap or None
            None if there is no such item, if it is empty, or with ``enable_memory_mapping = False``.
        """
        with self._opened("get_mmap"):
            if not self.settings.enable_memory_mapping:
                return None
            if (mapped := self._mapped.get(key)) is None:
                item = self._items.get(key)
                if item is None or item.size == 0 or (reader := self._disk.open(_key(item))) is None:
                    self._hits.miss += 1
                    return None
                with reader:
                    descriptor = reader.fileno()
                    assert descriptor is not None
                    mapped = self._mapped[key] = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
                self._items.use(item, self._clock())
            self._hits.mmap += 1
            return mapped

    # -- making room ---------------------------------------------------------------------------------------------------

    def evict(self, target: int | None = None) -> int:
        """Remove the coldest items from memory; they stay on disk.

        Parameters
        ----------
        target : int, optional
            Bytes to free at least; a tenth of ``memory_cache_size`` by default.

        Returns
        -------
        int
            Bytes freed; fewer than ``target`` only if there were no more.
        """
        with self._opened("evict"):
            wanted = int(self.settings.memory_cache_size * _EVICTED_SHARE) if target is None else target
            now = self._clock()
            known = {item.key: item.uses for item in self._items.all()}
            cold = sorted(self._memory, key=lambda key: self._heat(known.get(key), now))
            freed = 0
            for key in cold:
                if freed >= wanted:
                    break
                freed += self._memory.pop(key).size()
                self._mapped.pop(key, None)
            return freed

    def clear(self, tiers: Iterable[str] | None = None) -> None:
        """Forget the items of tiers: of ``"memory"``, ``"disk"``, ``"mmap"``, or of all.

        Raises
        ------
        ValueError
            There is no tier of this name.
        """
        chosen = set(("memory", "disk", "mmap") if tiers is None else tiers)
        if unknown := chosen - {"memory", "disk", "mmap"}:
            raise ValueError(f"no tier is called {', '.join(sorted(unknown))}; there are memory, disk and mmap")
        with self._opened("clear"):
            if "memory" in chosen:
                self._memory.clear()
            if chosen & {"mmap", "disk"}:
                self._mapped.clear()
            if "disk" in chosen:
                self._drop(self._items.all())

    # -- the whole -----------------------------------------------------------------------------------------------------

    def get_stats(self) -> dict[str, Any]:
        """Sizes, hits and the state of the policy, in the shape that ipfs_kit_py gives."""
        with self._opened():
            now = self._clock()
            items = self._items.all()
            heats = [self._heat(item.uses, now) for item in items]
            return report(
                self.settings, self._directory, now, items, heats, self._memory.state(), self._hits, len(self._mapped)
            )

    def get_metrics(self) -> dict[str, Any]:
        """Latencies of the operations of this manager, and traffic of its tiers.

        Returns
        -------
        dict
            ``operations``: by name (``get``, ``put``, …) ``count`` and, in seconds, ``total``, ``mean``, ``p50``, ``p99`` (both
            up to a factor of two) and ``max``; waiting for another thread is part of them. ``tiers``: of ``memory``,
            ``disk`` and ``mmap`` the ``hits``, and what was ``read`` and ``written``: ``count``, ``bytes``, ``seconds``, and
            their quotient, ``bandwidth``.
        """
        with self._opened():
            hits = self._hits
            return self._metrics.report({"memory": hits.memory, "disk": hits.disk, "mmap": hits.mmap})

    def close(self) -> None:
        """Write down what was used; mapped content stays readable."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._mapped.clear()
                self._items.close()
                self._disk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, operation: str = "") -> Iterator[None]:
        """Alone, and not closed; ``operation`` is timed."""
        began = self._metrics.timer()
        with self._lock:
            if self._closed:
                raise ValueError("the cache manager is closed")
            try:
                yield
            finally:
                if operation:
                    self._metrics.done(operation, began)

    def _heat(self, uses: Uses | None, now: float) -> float:
        if uses is None:
            return 0.0
        return heat(uses.count, uses.last - uses.first, max(0.0, now - uses.last), self.settings.arc.weights)

    @property
    def _largest_in_memory(self) -> int:
        return min(self.settings.max_item_size, self.settings.memory_cache_size)

    def _forget_other_versions(self, item: Item) -> None:
        """Another process may have put other content."""
        if (known := self._memory.peek(item.key)) is not None and known.version != item.version:
            del self._memory[item.key]

    def _remember(self, key: str, content: bytes, version: str) -> bool:
        if len(content) > self._largest_in_memory:
            self._memory.pop(key, None)
            return False
        with self._metrics.moving("memory", "written") as moved:
            self._memory[key] = _Content(version, content)
            moved.count += 1
            moved.bytes += len(content)
        return True

    def _put_on_disk(self, item: Item, content: bytes) -> bool:
        before = self._items.get(item.key)
        replaced = [] if before is None else [before]
        if item.size > self.settings.local_cache_size:
            self._drop(replaced)
            return False
        file, path = self._disk.temporary()
        data = memoryview(content)
        try:
            file.write(0, data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._drop(replaced)
        self._make_room(item.size, item.added)
        self._disk.seal(_key(item), path, checksum=Checksum(data).digest())
        if not self._disk.contains(_key(item)):
            return False
        self._items.put(item)
        return True

    def _make_room(self, size: int, now: float) -> None:
        """Remove what is worth least until ``size`` more bytes fit."""
        over = self._items.totals()[0] + size - self.settings.local_cache_size
        if over <= 0:
            return
        gone = []
        for item in sorted(self._items.all(), key=lambda item: item.worth(now)):
            gone.append(item)
            over -= item.size
            if over <= 0:
                break
        self._drop(gone)

    def _drop(self, items: Iterable[Item]) -> None:
        """Remove items from disk."""
        for item in items:
            self._items.remove([item.key])
            self._mapped.pop(item.key, None)
            self._disk.discard(_key(item))

    def _read(self, item: Item) -> bytes | None:
        reader = self._disk.open(_key(item))
        if reader is None:
            # Somebody removed the file.
            self._drop([item])
            return None
        with reader, self._metrics.moving("disk", "read") as moved:
            content = bytes(reader.read_now(0, item.size) or b"")
            if hashlib.sha256(content).hexdigest() == item.version:
                moved.count += 1
                moved.bytes += item.size
                return content
        self._drop([item])
        return None


def _key(item: Item) -> ObjectKey:
    return ObjectKey(_STORE, item.key, item.version, item.size)
