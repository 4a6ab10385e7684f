"""ARC: a cache of bounded size that weighs what was used lately against what is used often, by what it lately missed.

Adaptive Replacement Cache, N. Megiddo and D. S. Modha, FAST 2003, for items of different sizes: all sizes, the target
among them, are sums of ``getsizeof``. As in ipfs_kit_py, the victim among the items used often is the coldest
(`fsdriver.cache.heat`), and the target is bounded; so a loop longer than the cache, of which ARC would keep nothing,
keeps what fits.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from .heat import DEFAULT_WEIGHTS, HeatWeights, Uses

K = TypeVar("K")
V = TypeVar("V")

GHOSTS: Final = 1024
CANDIDATES: Final = 8
"""Of the items used often, so many of the least recently used are compared for the coldest: heat changes by itself, so no
order of all could be kept, and what was hot long ago must not stay for ever."""
MARGIN: Final = 1.1
"""An item must be so many times as hot as one that it displaces: among equals nothing moves."""
PATIENCE: Final = 4.0
"""An item that was not used for so many times as long as its challenger is displaced, however hot it was."""
_ABSENT: Final = object()


@dataclass(slots=True)
class ARCCounts:
    """What happened since the cache was made.

    Attributes
    ----------
    recent_hits, frequent_hits, misses : int
        Values looked up that were in T1 (and moved to T2), in T2, in neither.
    recent_ghost_hits, frequent_ghost_hits : int
        Items stored whose keys were in B1, in B2.
    recent_evictions, frequent_evictions : int
        Items evicted from T1, from T2.
    adjustments : int
        Changes of the target.
    """

    recent_hits: int = 0
    frequent_hits: int = 0
    misses: int = 0
    recent_ghost_hits: int = 0
    frequent_ghost_hits: int = 0
    recent_evictions: int = 0
    frequent_evictions: int = 0
    adjustments: int = 0


@dataclass(frozen=True, slots=True)
class ARCState:
    """What a cache consists of, in entries and in units of ``getsizeof``.

    Attributes
    ----------
    recent, recent_size : int
        T1, items used once.
    frequent, frequent_size : int
        T2, items used again.
    recent_ghosts, frequent_ghosts : int
        B1 and B2, keys of items that were evicted from T1 and T2.
    target : int
        p, the size that T1 should have.
    evictions, refusals : int
        Items evicted, and items that `ARCCache.offer` did not take.
    counts : ARCCounts
        What led there.
    """

    recent: int
    recent_size: int
    frequent: int
    frequent_size: int
    recent_ghosts: int
    frequent_ghosts: int
    target: int
    evictions: int
    refusals: int
    counts: ARCCounts


@dataclass(slots=True)
class _Item(Generic[V]):
    value: V
    size: int
    uses: Uses


class _Residents(Generic[K, V]):
    """T1 or T2: items with their values, least recently used first."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: OrderedDict[K, _Item[V]] = OrderedDict()
        self.size = 0

    def add(self, key: K, item: _Item[V]) -> None:
        self.items[key] = item
        self.size += item.size

    def take(self, key: K) -> _Item[V]:
        item = self.items.pop(key)
        self.size -= item.size
        return item

    def clear(self) -> None:
        self.items.clear()
        self.size = 0


class _Ghosts(Generic[K]):
    """B1 or B2: when evicted items were used, the oldest forgotten first."""

    __slots__ = ("_limit", "_uses")

    def __init__(self, limit: int) -> None:
        self._uses: OrderedDict[K, Uses] = OrderedDict()
        self._limit = limit

    def add(self, key: K, uses: Uses) -> None:
        self._uses[key] = uses
        if len(self._uses) > self._limit:
            self._uses.popitem(last=False)

    def take(self, key: K) -> Uses | None:
        return self._uses.pop(key, None)

    def clear(self) -> None:
        self._uses.clear()

    def __contains__(self, key: K) -> bool:
        return key in self._uses

    def __len__(self) -> int:
        return len(self._uses)

    def __iter__(self) -> Iterator[K]:
        return iter(self._uses)


class ARCCache(MutableMapping[K, V]):
    """A mapping that evicts; used as `cachetools.Cache` is, ``__missing__`` among it.

    ``currsize`` never exceeds ``maxsize``. As with cachetools, who shares one among threads puts a lock around it.
    ``cache[key]``, `get`, `setdefault` and every store are uses; ``in``, iteration and `pop` are not.

    Parameters
    ----------
    maxsize : int
        Bound on the sum of the sizes.
    getsizeof : callable, optional
        Size of a value; 1 by default.
    maxitem : int, optional
        Largest size of one item; ``maxsize`` by default.
    ghosts : int
        Bound on the keys of evicted items, of each of the two kinds. A loop is noticed if it is not longer than what is
        kept and these.
    max_target : float
        Largest share of ``maxsize`` that is given to items used once while others are there.
    weights : HeatWeights
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        maxsize: int,
        getsizeof: Callable[[V], int] | None = None,
        *,
        maxitem: int | None = None,
        ghosts: int = GHOSTS,
        max_target: float = 0.5,
        weights: HeatWeights = DEFAULT_WEIGHTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if maxsize < 0:
            raise ValueError("maxsize must be non-negative")
        if getsizeof is not None:
            self.getsizeof = getsizeof  # type: ignore[assignment]
        self._maxsize = maxsize
        self._maxitem = maxsize if maxitem is None else min(maxitem, maxsize)
        self._max_target = int(maxsize * max_target)
        self._weights = weights
        self._clock = clock
        self._recent: _Residents[K, V] = _Residents()
        self._frequent: _Residents[K, V] = _Residents()
        self._recent_ghosts: _Ghosts[K] = _Ghosts(ghosts)
        self._frequent_ghosts: _Ghosts[K] = _Ghosts(ghosts)
        self._target = 0
        self._refusals = 0
        self._counts = ARCCounts()

    # -- the mapping ---------------------------------------------------------------------------------------------------

    @property
    def maxsize(self) -> int:
        """Bound on the sum of the sizes."""
        return self._maxsize

    @property
    def currsize(self) -> int:
        """Sum of the sizes."""
        return self._recent.size + self._frequent.size

    @staticmethod
    def getsizeof(value: Any) -> int:  # noqa: ARG004 - a subclass looks at it
        """Size of a value."""
        return 1

    def __getitem__(self, key: K) -> V:
        item = self._frequent.items.get(key)
        if item is not None:
            self._frequent.items.move_to_end(key)
            self._counts.frequent_hits += 1
        elif key in self._recent.items:
            item = self._recent.take(key)
            self._frequent.add(key, item)
            self._counts.recent_hits += 1
        else:
            self._counts.misses += 1
            return self.__missing__(key)
        item.uses.note(self._clock())
        return item.value

    def __missing__(self, key: K) -> V:
        raise KeyError(key)

    def __setitem__(self, key: K, value: V) -> None:
        if not self._put(key, value, contested=False):
            raise ValueError("value too large")

    def __delitem__(self, key: K) -> None:
        self._residents(key).take(key)

    def __contains__(self, key: object) -> bool:
        return key in self._recent.items or key in self._frequent.items

    def __iter__(self) -> Iterator[K]:
        # A list, as values looked up meanwhile change their places.
        return iter([*self._recent.items, *self._frequent.items])

    def __len__(self) -> int:
        return len(self._recent.items) + len(self._frequent.items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r}, maxsize={self.maxsize!r}, currsize={self.currsize!r})"

    # Those of MutableMapping take an absent key for one that `__missing__` does not know either.

    def get(self, key: K, default: Any = None) -> Any:
        """The value, or ``default``; `__missing__` is not asked."""
        if key in self:
            return self[key]
        self._counts.misses += 1
        return default

    def pop(self, key: K, default: Any = _ABSENT) -> Any:
        """Remove a key, without a trace, and return its value."""
        if key in self:
            return self._residents(key).take(key).value
        if default is _ABSENT:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Evict what would be evicted next."""
        residents, key = self._victim()
        return key, self._evict(residents, key).value

    def setdefault(self, key: K, default: Any = None) -> Any:
        """The value, after storing ``default`` if there was none."""
        if key in self:
            return self[key]
        self[key] = default
        return default

    def clear(self) -> None:
        """Forget everything, also what was learned."""
        for part in (self._recent, self._frequent, self._recent_ghosts, self._frequent_ghosts):
            part.clear()
        self._target = 0

    # -- beyond it -----------------------------------------------------------------------------------------------------

    def peek(self, key: K) -> V | None:
        """The value, or None; no use."""
        item = self._frequent.items.get(key) or self._recent.items.get(key)
        return None if item is None else item.value

    def offer(self, key: K, value: V) -> bool:
        """Store an item unless others are worth more.

        One that was evicted lately, and for which an item that is used often would have to go, is refused unless it is
        hotter (`MARGIN`), or that one has been idle for long (`PATIENCE`). The use is remembered: it may be taken the next
        time.

        Returns
        -------
        bool
            False if it was refused, or is larger than ``maxitem``.
        """
        taken = self._put(key, value, contested=True)
        self._refusals += not taken
        return taken

    def state(self) -> ARCState:
        """Sizes of the parts."""
        return ARCState(
            recent=len(self._recent.items),
            recent_size=self._recent.size,
            frequent=len(self._frequent.items),
            frequent_size=self._frequent.size,
            recent_ghosts=len(self._recent_ghosts),
            frequent_ghosts=len(self._frequent_ghosts),
            target=self._target,
            evictions=self._counts.recent_evictions + self._counts.frequent_evictions,
            refusals=self._refusals,
            counts=replace(self._counts),
        )

    def _put(self, key: K, value: V, *, contested: bool) -> bool:
        size = self.getsizeof(value)
        if size < 0:
            raise ValueError("value size must be non-negative")
        if size > self._maxitem:
            return False
        now = self._clock()
        if key in self:
            residents = self._residents(key)
            uses = residents.take(key).uses
            self._make_room(size, now)
            uses.note(now)
            residents.add(key, _Item(value, size, uses))
            return True
        ghosts = self._adapt(key, size)
        past = None if ghosts is None else ghosts.take(key)
        if ghosts is None or past is None:
            self._make_room(size, now)
            self._recent.add(key, _Item(value, size, Uses(now, now)))
            return True
        taken = self._make_room(size, now, past if contested else None)
        past.note(now)
        if taken:
            self._frequent.add(key, _Item(value, size, past))
        else:
            ghosts.add(key, past)
        return taken

    def _residents(self, key: K) -> _Residents[K, V]:
        return self._recent if key in self._recent.items else self._frequent

    def _adapt(self, key: K, size: int) -> _Ghosts[K] | None:
        """The ghosts among which the key is; the part that would have kept it grows."""
        once, often = len(self._recent_ghosts), len(self._frequent_ghosts)
        if key in self._recent_ghosts:
            self._counts.recent_ghost_hits += 1
            self._aim(min(self._max_target, self._target + int(size * max(1.0, often / once))))
            return self._recent_ghosts
        if key in self._frequent_ghosts:
            self._counts.frequent_ghost_hits += 1
            self._aim(max(0, self._target - int(size * max(1.0, once / often))))
            return self._frequent_ghosts
        return None

    def _aim(self, target: int) -> None:
        self._counts.adjustments += target != self._target
        self._target = target

    def _make_room(self, size: int, now: float, challenger: Uses | None = None) -> bool:
        """Evict until ``size`` more fits; False if an item that would have to go is worth more than the challenger."""
        while self.currsize + size > self._maxsize:
            residents, key = self._victim(now)
            if challenger is not None and residents is self._frequent:
                uses = residents.items[key].uses
                alive = now - uses.last <= PATIENCE * (now - challenger.last)
                if alive and MARGIN * uses.heat(now, self._weights) >= challenger.heat(now, self._weights):
                    return False
            self._evict(residents, key)
        return True

    def _victim(self, now: float | None = None) -> tuple[_Residents[K, V], K]:
        once, often = self._recent, self._frequent
        if once.items and (once.size > self._target or not often.items):
            return once, next(iter(once.items))
        if not often.items:
            raise KeyError(f"{type(self).__name__} is empty")
        when = self._clock() if now is None else now
        oldest = islice(often.items.items(), CANDIDATES)
        return often, min(oldest, key=lambda pair: pair[1].uses.heat(when, self._weights))[0]

    def _evict(self, residents: _Residents[K, V], key: K) -> _Item[V]:
        item = residents.take(key)
        ghosts = self._recent_ghosts if residents is self._recent else self._frequent_ghosts
        ghosts.add(key, item.uses)
        self._counts.recent_evictions += residents is self._recent
        self._counts.frequent_evictions += residents is self._frequent
        return item
