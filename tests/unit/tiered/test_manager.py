"""The tiered cache manager: what its users know of ipfs_kit_py's, on real files."""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cache.heat import Uses
from fsdriver.errors import ConfigError
from fsdriver.tiered import TieredCacheManager
from fsdriver.tiered.items import Item
from fsdriver.tiered.metrics import Latency
from tests.clock import Clock

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "cache_vectors.json").read_text())
DAY = 86400.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., TieredCacheManager]]:
    made = []

    def maker(**config: Any) -> TieredCacheManager:
        made.append(TieredCacheManager({"local_cache_path": str(tmp_path / "cache"), **config}, clock=clock))
        return made[-1]

    yield maker
    for manager in made:
        manager.close()


# -- configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S2-01")
def test_the_defaults_are_those_of_ipfs_kit_py(make: Callable[..., TieredCacheManager]) -> None:
    settings = make().settings.model_dump(exclude={"local_cache_path", "external_backends"})
    assert settings == VECTORS["default_config"]
    assert make(arc={"ghost_list_size": 7}).settings.arc.model_dump() == {
        **VECTORS["default_config"]["arc"],
        "ghost_list_size": 7,
    }


@pytest.mark.feature("S2-01")
def test_sizes_may_be_texts_and_keys_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "other"
    config = {"memory_cache_size": "500MB", "disk_cache_size": "2 GiB", "disk_cache_path": str(path)}
    with TieredCacheManager(config) as manager:
        settings = manager.settings
    assert (settings.memory_cache_size, settings.local_cache_size) == (500_000_000, 2 << 30)
    assert (path / "items.db").exists()


@pytest.mark.feature("S2-01")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"memory_cache_sise": 1}, "memory_cache_sise"),
        ({"memory_cache_size": "much"}, "no size"),
        ({"arc": {"ghosts": 1}}, "arc.ghosts"),
        ({"external_backends": {"s3": {"enabled": True}}}, "s3"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TieredCacheManager({"local_cache_path": str(tmp_path), **config})


# -- put and get ----------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S2-02", "S2-03")
def test_small_items_are_in_both_tiers_large_ones_on_disk_only(make: Callable[..., TieredCacheManager]) -> None:
    manager = make(memory_cache_size=2000, max_item_size=500, local_cache_size=5000)
    assert manager.put("small", b"s" * 100, {"type": "text"})
    assert manager.put("large", b"l" * 600)
    assert not manager.put("too large", b"x" * 6000)
    assert not manager.put("no bytes", "text")  # type: ignore[arg-type]
    assert manager.get("small") == b"s" * 100
    assert manager.get("large") == manager.get("large") == b"l" * 600
    assert manager.get("too large") is manager.get("no bytes") is manager.get("unknown") is None
    assert manager.get_stats()["hits"] == {"memory": 1, "disk": 2, "mmap": 0, "miss": 3}


@pytest.mark.feature("S2-02")
def test_the_first_hit_on_disk_brings_an_item_into_memory(make: Callable[..., TieredCacheManager]) -> None:
    manager = make()
    manager.put("a", b"content")
    manager.clear(["memory"])
    assert [manager.get("a") for _ in range(3)] == [b"content"] * 3
    assert manager.get_stats()["hits"] == {"memory": 2, "disk": 1, "mmap": 0, "miss": 0}


@pytest.mark.feature("S2-03")
def test_what_is_larger_than_the_disk_may_still_be_in_memory(make: Callable[..., TieredCacheManager]) -> None:
    manager = make(memory_cache_size=1000, local_cache_size=100)
    assert manager.put("a", b"x" * 500)
    assert manager.get("a") == b"x" * 500
    assert manager.get_stats()["disk_cache"]["entry_count"] == 0


@pytest.mark.feature("S2-06")
def test_items_survive_a_restart_with_uses_and_metadata(make: Callable[..., TieredCacheManager], clock: Clock) -> None:
    first = make()
    first.put("a/b", b"one", {"type": "text"})
    first.put("a_b", b"two")
    clock.now += 60
    first.get("a/b")
    first.close()
    second = make()
    assert (second.get("a/b"), second.get("a_b")) == (b"one", b"two")
    stats = second.get_stats()
    assert stats["disk_cache"]["by_type"] == {"text": 1, "unknown": 1}
    # Put, got, and got after the restart.
    assert stats["arc_metrics"]["heat_score_metrics"]["max"] == pytest.approx(
        (3**1.5 * 0.7 + 0.3) * 2.0 * (1 + math.log(1 + 60 / DAY))
    )


@pytest.mark.feature("S2-06")
def test_overwriting_keeps_the_account_exact(make: Callable[..., TieredCacheManager]) -> None:
    manager = make()
    for size in (10, 30, 20):
        manager.put("k", bytes(size))
        assert manager.get_stats()["disk_cache"]["current_size"] == size
        assert manager.get("k") == bytes(size)
    assert manager.get_stats()["total_items"] == 1


@pytest.mark.feature("S2-06")
def test_files_removed_or_changed_behind_its_back_are_misses(
    make: Callable[..., TieredCacheManager], tmp_path: Path
) -> None:
    manager = make()
    for name in ("gone", "changed", "kept"):
        manager.put(name, name.encode() * 100)
    manager.clear(["memory"])
    for path in (tmp_path / "cache" / "objects").rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"gone"):
            path.unlink()
        elif path.is_file() and path.read_bytes().startswith(b"changed"):
            path.write_bytes(b"CHANGED" * 100)
    assert manager.get("gone") is manager.get("changed") is None
    assert manager.get("kept") == b"kept" * 100
    assert manager.get_stats()["disk_cache"]["entry_count"] == 1


@pytest.mark.feature("S2-06")
def test_a_damaged_table_is_an_empty_cache(make: Callable[..., TieredCacheManager], tmp_path: Path) -> None:
    manager = make()
    manager.put("a", b"content")
    manager.close()
    (tmp_path / "cache" / "items.db").write_bytes(b"no database at all" * 100)
    again = make()
    assert again.get("a") is None
    assert again.put("a", b"content")


WRITER = """
import sys
from fsdriver.tiered import TieredCacheManager
manager = TieredCacheManager({"local_cache_path": sys.argv[1]})
for number in range(100_000):
    manager.put(f"k{number % 50}", bytes([number % 256]) * 50_000)
    print(number, flush=True)
"""


@pytest.mark.feature("S2-06")
def test_a_kill_in_the_middle_of_puts_leaves_a_cache_that_can_be_read(
    make: Callable[..., TieredCacheManager], tmp_path: Path
) -> None:
    path = tmp_path / "cache"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 120:
            pass
        writer.send_signal(signal.SIGKILL)
    manager = make()
    for number in range(50):
        content = manager.get(f"k{number}")
        assert content is None or (len(content) == 50_000 and len(set(content)) == 1)
    assert manager.put("k1", b"new")
    assert manager.get("k1") == b"new"


def test_processes_share_a_directory(make: Callable[..., TieredCacheManager]) -> None:
    one, other = make(), make()
    one.put("a", b"first")
    assert other.get("a") == b"first"
    one.put("a", b"second")
    assert other.get("a") == b"second"


@pytest.mark.feature("S2-03")
def test_what_is_refused_leaves_what_was_there(make: Callable[..., TieredCacheManager], tmp_path: Path) -> None:
    manager = make(memory_cache_size=200, local_cache_size=100)
    assert manager.put("a", b"old")
    assert not manager.put("a", bytes(201))
    with pytest.raises(TypeError):
        manager.put("a", b"new", {"not": {"of", "JSON"}})
    assert manager.get("a") == b"old"
    assert manager.put("a", bytes(150))
    assert manager.get("a") == bytes(150)
    manager.clear(["memory"])
    assert manager.get("a") is None


def test_a_closed_manager_says_so(make: Callable[..., TieredCacheManager]) -> None:
    manager = make()
    manager.close()
    manager.close()
    with pytest.raises(ValueError, match="closed"):
        manager.get("a")


# -- making room ----------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S2-07")
@pytest.mark.parametrize("case", VECTORS["disk_eviction_heat"])
def test_the_worth_of_an_item_on_disk(case: dict[str, Any]) -> None:
    now = 1e9
    uses = Uses(now - case["added_age_s"], now - case["idle_s"], case["access_count"])
    item = Item("k", "v", 1, now - case["added_age_s"], uses, None)
    assert item.worth(now) == pytest.approx(case["heat"], abs=1e-9)


@pytest.mark.feature("S2-07")
def test_the_disk_gives_up_what_is_worth_least(make: Callable[..., TieredCacheManager], clock: Clock) -> None:
    manager = make(memory_cache_size=0, local_cache_size=100)
    for name in "abcd":
        manager.put(name, name.encode() * 25)
        clock.now += 60
    manager.get("a")
    assert manager.put("e", b"e" * 25)
    assert {name for name in "abcde" if manager.get(name)} == set(
        VECTORS["disk_evict_example"]["remaining_after_put_e"]
    )
    assert manager.get_stats()["disk_cache"]["current_size"] == VECTORS["disk_evict_example"]["current_size"]
    assert not manager.put("oversize", b"x" * 101)
    assert manager.get_stats()["disk_cache"]["entry_count"] == 4


@pytest.mark.feature("S2-11")
def test_evict_frees_the_coldest_of_memory(make: Callable[..., TieredCacheManager], clock: Clock) -> None:
    manager = make(memory_cache_size=1000)
    for name in "abcdefgh":
        manager.put(name, name.encode() * 100)
    for name in "abc":
        manager.get(name)
    before = manager.get_stats()["memory_cache"]["current_size"]
    assert manager.evict(250) == 300
    stats = manager.get_stats()
    assert stats["memory_cache"]["current_size"] == before - 300
    assert manager.evict() == 100
    for name in "abc":
        manager.get(name)
    assert manager.get_stats()["hits"]["memory"] == stats["hits"]["memory"] + 3
    assert all(manager.get(name) == name.encode() * 100 for name in "abcdefgh")


@pytest.mark.feature("S2-11")
def test_clear_empties_the_tiers_that_are_named(make: Callable[..., TieredCacheManager]) -> None:
    manager = make()
    manager.put("a", b"content")
    manager.clear(["memory"])
    assert manager.get("a") == b"content"
    manager.clear(["disk"])
    assert manager.get("a") == b"content"
    manager.clear()
    assert manager.get("a") is None
    with pytest.raises(ValueError, match="tape"):
        manager.clear(["tape"])


# -- mmap -----------------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S2-09")
def test_mapped_content_is_the_cache_file_and_outlives_it(
    make: Callable[..., TieredCacheManager], tmp_path: Path
) -> None:
    manager = make()
    manager.put("a", b"mapped" * 1000)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    mapped = manager.get_mmap("a")
    assert isinstance(mapped, mmap.mmap)
    assert mapped[:] == b"mapped" * 1000
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
    assert manager.get_stats()["mmap_files"] == 1
    with pytest.raises(TypeError):
        mapped[0] = 0
    manager.clear()
    assert manager.get_stats()["mmap_files"] == 0
    assert mapped[:6] == b"mapped"
    assert manager.get_mmap("a") is None


@pytest.mark.feature("S2-09")
def test_what_cannot_be_mapped(make: Callable[..., TieredCacheManager]) -> None:
    manager = make()
    manager.put("empty", b"")
    assert manager.get("empty") == b""
    assert manager.get_mmap("empty") is manager.get_mmap("unknown") is None
    manager.close()
    assert make(enable_memory_mapping=False).get_mmap("empty") is None


# -- statistics -----------------------------------------------------------------------------------------------------------


def shape(value: Any) -> Any:
    """Types in place of values, as in the recorded shape."""
    return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else type(value).__name__


@pytest.mark.feature("S2-10")
def test_statistics_have_the_shape_of_ipfs_kit_py(make: Callable[..., TieredCacheManager]) -> None:
    manager = make(memory_cache_size=1000, external_backends={"s3": {"enabled": False}})
    for number in range(20):
        manager.put(f"k{number}", bytes(100))
        manager.get(f"k{number // 2}")
    manager.clear(["memory"])
    manager.get("k1")
    stats = manager.get_stats()
    assert stats.pop("external_backends") == {"s3": {"enabled": False, "hits": 0, "stored": 0, "bytes": 0, "errors": 0}}
    assert shape(stats) == VECTORS["get_stats_shape"]
    assert 0 < stats["memory_cache"]["utilization"] <= 1
    assert f"{stats['disk_cache']['utilization']:.1%}" == "0.0%"
    assert stats["disk_cache"]["age_distribution"]["under_1hour"] == 20
    assert os.path.isdir(stats["disk_cache"]["directory"])


# -- metrics ------------------------------------------------------------------------------------------------------------


class Ticks:
    """A timer that moves on by one second each time it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.feature("S2-38")
def test_operations_and_tiers_are_counted_and_timed(tmp_path: Path) -> None:
    config = {"local_cache_path": str(tmp_path / "cache"), "max_item_size": 1000}
    with TieredCacheManager(config, timer=Ticks()) as manager:
        assert manager.get_metrics()["operations"] == {}
        manager.put("small", b"s" * 100)
        manager.put("large", b"l" * 5000)
        manager.get("small")
        manager.get("large")
        manager.get("missing")
        manager.clear(["memory"])
        manager.get("small")
        manager.get_mmap("large")
        metrics = manager.get_metrics()
    operations, tiers = metrics["operations"], metrics["tiers"]
    assert {name: one["count"] for name, one in operations.items()} == {"put": 2, "get": 4, "clear": 1, "get_mmap": 1}
    assert operations["clear"] == {"count": 1, "total": 1.0, "mean": 1.0, "p50": 1.0, "p99": 1.0, "max": 1.0}
    get = operations["get"]
    assert get["mean"] == get["total"] / 4
    assert get["p50"] <= get["p99"] <= get["max"] < get["total"]
    assert {name: tier["hits"] for name, tier in tiers.items()} == {"memory": 1, "disk": 2, "mmap": 1}
    assert (tiers["memory"]["read"]["count"], tiers["memory"]["read"]["bytes"]) == (1, 100)
    assert (tiers["memory"]["written"]["count"], tiers["memory"]["written"]["bytes"]) == (2, 200)
    assert tiers["disk"]["read"] == {"count": 2, "bytes": 5100, "seconds": 2.0, "bandwidth": 2550.0}
    assert tiers["disk"]["written"] == {"count": 2, "bytes": 5100, "seconds": 2.0, "bandwidth": 2550.0}


@pytest.mark.feature("S2-38")
def test_quantiles_of_latencies() -> None:
    latency = Latency()
    assert latency.quantile(0.5) == 0.0
    for milliseconds in range(1, 101):
        latency.add(milliseconds / 1000)
    assert 0.05 <= latency.quantile(0.5) <= 0.1
    assert 0.099 <= latency.quantile(0.99) <= 0.1
    latency.add(1e6)
    assert latency.quantile(1.0) == latency.longest == 1e6
