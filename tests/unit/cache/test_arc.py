"""ARC: against a plain model, against a recorded trace of ipfs_kit_py, as a mapping of cachetools, and on known patterns."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cachetools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdriver.cache import ARCCache
from fsdriver.cache.arc import CANDIDATES, MARGIN, PATIENCE
from fsdriver.cache.heat import heat

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "cache_vectors.json").read_text())


class Clock:
    """Seconds; one for each look."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def sized(maxsize: int, **options: Any) -> ARCCache[Any, Any]:
    """A cache of numbers, each as large as it says."""
    return ARCCache(maxsize, lambda value: value, **{"clock": Clock(), **options})


def parts(cache: ARCCache[Any, Any]) -> dict[str, list[Any]]:
    return {
        "T1": list(cache._recent.items),
        "T2": list(cache._frequent.items),
        "B1": list(cache._recent_ghosts),
        "B2": list(cache._frequent_ghosts),
    }


# -- a plain model ---------------------------------------------------------------------------------------------------


@dataclass
class Known:
    key: int
    size: int
    uses: list[float]


@dataclass
class Model:
    """The rules, with lists and loops: [least recently used, …, most recently used]."""

    maxsize: int
    ghosts: int
    t1: list[Known] = field(default_factory=list)
    t2: list[Known] = field(default_factory=list)
    b1: list[Known] = field(default_factory=list)
    b2: list[Known] = field(default_factory=list)
    p: int = 0

    def heat(self, known: Known, now: float) -> float:
        return heat(len(known.uses), known.uses[-1] - known.uses[0], now - known.uses[-1])

    @staticmethod
    def size(items: list[Known]) -> int:
        return sum(known.size for known in items)

    @staticmethod
    def named(items: list[Known], key: int) -> Known | None:
        return next((known for known in items if known.key == key), None)

    def bound_ghosts(self, ghosts: list[Known]) -> None:
        while len(ghosts) > self.ghosts:
            del ghosts[0]

    def get(self, key: int, now: float) -> int | None:
        for items in (self.t1, self.t2):
            if known := self.named(items, key):
                items.remove(known)
                self.t2.append(known)
                known.uses.append(now)
                return known.size
        return None

    def victim(self, now: float) -> tuple[list[Known], Known]:
        if self.t1 and (self.size(self.t1) > self.p or not self.t2):
            return self.t1, self.t1[0]
        return self.t2, min(self.t2[:CANDIDATES], key=lambda known: self.heat(known, now))

    def room(self, size: int, now: float, challenger: Known | None) -> bool:
        while self.size(self.t1) + self.size(self.t2) + size > self.maxsize:
            items, known = self.victim(now)
            if challenger and items is self.t2:
                idle, challenging = now - known.uses[-1], now - challenger.uses[-1]
                if idle <= PATIENCE * challenging and MARGIN * self.heat(known, now) >= self.heat(challenger, now):
                    return False
            self.evict(items, known)
        return True

    def evict(self, items: list[Known], known: Known) -> None:
        items.remove(known)
        ghosts = self.b1 if items is self.t1 else self.b2
        ghosts.append(known)
        self.bound_ghosts(ghosts)

    def put(self, key: int, size: int, now: float, *, contested: bool) -> bool:
        if size > self.maxsize:
            return False
        for items in (self.t1, self.t2):
            if known := self.named(items, key):
                items.remove(known)
                self.room(size, now, None)
                known.size = size
                known.uses.append(now)
                items.append(known)
                return True
        once, often = len(self.b1), len(self.b2)
        if known := self.named(self.b1, key):
            ghosts = self.b1
            self.p = min(self.maxsize // 2, self.p + int(size * max(1, often / once)))
        elif known := self.named(self.b2, key):
            ghosts = self.b2
            self.p = max(0, self.p - int(size * max(1, once / often)))
        else:
            self.room(size, now, None)
            self.t1.append(Known(key, size, [now]))
            return True
        ghosts.remove(known)
        known.size = size
        taken = self.room(size, now, known if contested else None)
        known.uses.append(now)
        (self.t2 if taken else ghosts).append(known)
        self.bound_ghosts(ghosts)
        return taken


KEYS = st.integers(0, 12)
STEPS = st.lists(
    st.tuples(st.sampled_from(["get", "set", "offer", "delete", "popitem", "clear"]), KEYS, st.integers(0, 60)),
    max_size=200,
)
USUAL = ["get", "get", "get", "offer", "offer", "set"]


def follow(cache: ARCCache[int, int], model: Model, clock: Clock, step: tuple[str, int, int]) -> None:
    """One step on both, and what must hold after each."""
    kind, key, size = step
    now = clock.now + clock.step
    if kind == "get":
        expected = model.get(key, now)
        assert (cache.get(key) if expected is not None or key in cache else None) == expected
    elif kind == "offer":
        assert cache.offer(key, size) == model.put(key, size, now, contested=True)
    elif kind == "set" and size <= cache.maxsize:
        cache[key] = size
        assert model.put(key, size, now, contested=False)
    elif kind == "set":
        with pytest.raises(ValueError, match="value too large"):
            cache[key] = size
    elif kind == "delete":
        known = Model.named(model.t1, key) or Model.named(model.t2, key)
        assert cache.pop(key, None) == (known.size if known else None)
        for items in (model.t1, model.t2):
            items[:] = [one for one in items if one.key != key]
    elif kind == "popitem" and len(cache):
        items, known = model.victim(now)
        model.evict(items, known)
        assert cache.popitem() == (known.key, known.size)
    elif kind == "clear":
        cache.clear()
        model.__init__(model.maxsize, model.ghosts)  # type: ignore[misc]
    assert cache.currsize == sum(cache._residents(key).items[key].size for key in cache) <= cache.maxsize
    found = parts(cache)
    for name, items in (("T1", model.t1), ("T2", model.t2), ("B1", model.b1), ("B2", model.b2)):
        assert found[name] == [known.key for known in items], name
    assert sum(map(len, found.values())) == len(set().union(*found.values())), "a key is in two lists"
    assert cache._target == model.p <= cache.maxsize // 2


@pytest.mark.feature("S2-04")
@given(st.integers(0, 100), st.integers(0, 8), STEPS)
def test_any_steps_are_as_in_a_plain_model(maxsize: int, ghosts: int, steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    cache: ARCCache[int, int] = ARCCache(maxsize, lambda value: value, ghosts=ghosts, clock=clock)
    model = Model(maxsize, ghosts)
    for step in steps:
        follow(cache, model, clock, step)


@pytest.mark.feature("S2-04")
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1.0, 100.0, 5000.0]))
def test_long_traces_are_as_in_a_plain_model(seed: int, pause: float) -> None:
    chance, clock = random.Random(seed), Clock(pause)
    cache: ARCCache[int, int] = ARCCache(400, lambda value: value, ghosts=50, clock=clock)
    model = Model(400, 50)
    for _ in range(1500):
        key = min(int(chance.expovariate(1 / 25)), 99)
        follow(cache, model, clock, (chance.choice(USUAL), key, key % 29 + 1))


# -- ipfs_kit_py -----------------------------------------------------------------------------------------------------


@pytest.mark.feature("S2-04")
def test_the_recorded_trace() -> None:
    cache = sized(1000)
    for step in VECTORS["arc_trace_1000B"]:
        if step["op"] == "put":
            assert cache.offer(step["key"], step["size"]) is step["result"]
        else:
            assert cache.get(step["key"]) == step["result"]
        assert parts(cache) == {name: step[name] for name in ("T1", "T2", "B1", "B2")}
        assert (cache._recent.size, cache._frequent.size) == (step["T1_size"], step["T2_size"])
        assert (cache.currsize, cache._target) == (step["current_size"], step["p"])


# -- a mapping -------------------------------------------------------------------------------------------------------


class Counting(ARCCache[Any, Any]):
    """Knows what it has not."""

    def __missing__(self, key: Any) -> Any:
        return f"missing {key}"


class Theirs(cachetools.LRUCache[Any, Any]):
    def __missing__(self, key: Any) -> Any:
        return f"missing {key}"


@pytest.mark.parametrize(
    "make",
    [Counting, Theirs, ARCCache, cachetools.LRUCache],
    ids=["arc", "cachetools", "arc plain", "cachetools plain"],
)
def test_it_behaves_as_a_cache_of_cachetools(make: Any) -> None:
    cache = make(maxsize=3)
    knows = hasattr(make, "__missing__") and make in (Counting, Theirs)
    assert (len(cache), cache.currsize, cache.maxsize, cache.getsizeof("x")) == (0, 0, 3, 1)
    with pytest.raises(KeyError):
        cache.popitem()
    with pytest.raises(KeyError):
        cache.pop("a")
    with pytest.raises(KeyError):
        del cache["a"]
    assert cache.pop("a", "default") == "default"
    assert cache.get("a") is None
    assert cache.get("a", "default") == "default"
    if knows:
        assert cache["a"] == "missing a"
    else:
        with pytest.raises(KeyError):
            cache["a"]
    assert "a" not in cache
    cache.update(a=1, b=2)
    assert cache.setdefault("a", 9) == 1
    assert cache.setdefault("c") is None
    assert sorted(cache) == ["a", "b", "c"]
    assert dict(cache.items()) == {"a": 1, "b": 2, "c": None}
    cache["d"] = 4
    assert (len(cache), cache.currsize, cache["d"]) == (3, 3, 4)
    assert cache.pop("d") == 4
    del cache["c"]
    assert (len(cache), cache.currsize) == (1, 1)
    ((key, value),) = [cache.popitem()]
    assert key not in cache
    cache[key] = value
    cache.clear()
    assert (len(cache), cache.currsize, list(cache)) == (0, 0, [])


@pytest.mark.parametrize("make", [ARCCache, cachetools.LRUCache])
def test_sizes_are_checked_as_in_cachetools(make: Any) -> None:
    cache = make(10, getsizeof=len)
    cache["a"] = b"12345"
    with pytest.raises(ValueError, match="value too large"):
        cache["b"] = b"x" * 11
    with pytest.raises(ValueError, match="value too large"):
        cache["a"] = b"x" * 11
    assert (cache["a"], cache.currsize) == (b"12345", 5)
    cache["b"] = b"123456"
    assert (list(cache), cache.currsize) == (["b"], 6)
    cache["b"] = b""
    assert cache.currsize == 0
    with pytest.raises(ValueError, match="maxsize"):
        make(-1)
    with pytest.raises(ValueError, match="non-negative"):
        make(10, getsizeof=lambda value: -1)["a"] = 1
    with pytest.raises(ValueError, match="value too large"):
        make(0)["a"] = 1


def test_it_decorates_functions() -> None:
    calls = []

    @cachetools.cached(ARCCache(maxsize=2))
    def square(number: int) -> int:
        calls.append(number)
        return number * number

    assert [square(2), square(2), square(3), square(2)] == [4, 4, 9, 4]
    assert calls == [2, 3]


def test_looking_is_no_use() -> None:
    cache = sized(10)
    cache["a"] = 1
    assert "a" in cache
    assert list(cache) == ["a"]
    assert cache.state().frequent == 0
    assert cache["a"] == 1
    assert cache.state().frequent == 1


# -- patterns --------------------------------------------------------------------------------------------------------


def hits(cache: Any, keys: Iterable[Any], size: int = 1) -> int:
    count = 0
    for key in keys:
        if cache.get(key) is not None:
            count += 1
        elif isinstance(cache, ARCCache):
            cache.offer(key, size)
        else:
            cache[key] = size
    return count


@pytest.mark.feature("S2-05")
def test_a_loop_longer_than_the_cache_keeps_what_fits() -> None:
    loop = [number for _ in range(20) for number in range(150)]
    assert hits(cachetools.LRUCache(100), loop) == 0
    assert hits(sized(100), loop) > 0.5 * len(loop)


@pytest.mark.feature("S2-05")
def test_a_scan_leaves_what_is_used_often() -> None:
    cache = sized(1000)
    hot = [f"hot {number}" for number in range(90)]
    hits(cache, hot * 2, 10)
    assert hits(cache, (f"cold {number}" for number in range(1000)), 10) == 0
    assert set(hot) <= set(cache)


def test_shuffled_epochs_keep_what_fits() -> None:
    chance, numbers = random.Random(3), list(range(400))
    epochs = []
    for _ in range(10):
        chance.shuffle(numbers)
        epochs += numbers
    assert hits(sized(200), epochs) > 0.38 * len(epochs)
    assert hits(cachetools.LRUCache(200), epochs) < 0.2 * len(epochs)


def test_what_was_hot_long_ago_goes() -> None:
    cache = sized(100)
    hits(cache, [number for _ in range(50) for number in range(100)])
    later = [1000 + number for _ in range(20) for number in range(80)]
    assert hits(cache, later) > 0.8 * len(later)


@pytest.mark.feature("S2-05")
def test_the_target_is_bounded() -> None:
    cache = sized(100, max_target=0.3)
    hits(cache, [number for _ in range(20) for number in range(150)])
    assert 0 < cache.state().target <= 30


def test_a_large_item_is_refused() -> None:
    cache = sized(100, maxitem=20)
    assert not cache.offer("large", 21)
    assert cache.offer("small", 20)
    assert (list(cache), cache.state().refusals) == (["small"], 1)
