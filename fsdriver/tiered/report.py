"""The statistics of a `TieredCacheManager`, in the shape of ipfs_kit_py's ``get_stats()``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fsdriver.cache import ARCState
from fsdriver.cache.heat import DAY, HOUR

from .items import Item
from .settings import TieredSettings

_MAX_TARGET_SHARE: Final = 0.5


@dataclass(slots=True)
class Hits:
    """Where gets found what they asked for."""

    memory: int = 0
    disk: int = 0
    mmap: int = 0
    miss: int = 0

    @property
    def rate(self) -> float:
        """Share of hits."""
        found = self.memory + self.disk + self.mmap
        return _share(found, found + self.miss)


def report(
    settings: TieredSettings,
    directory: Path,
    now: float,
    items: Sequence[Item],
    heats: Sequence[float],
    memory: ARCState,
    hits: Hits,
    mapped: int,
) -> dict[str, Any]:
    """All of it; shares are between 0 and 1, sizes are bytes, times are seconds since the epoch."""
    in_memory, on_disk = _memory(settings, memory), _disk(settings, directory, now, items)
    policy = settings.model_dump(exclude={"external_backends"}, mode="json") | {"local_cache_path": str(directory)}
    return {
        "timestamp": now,
        "hit_rate": hits.rate,
        "total_storage": in_memory["current_size"] + on_disk["current_size"],
        "total_items": len(items),
        "memory_cache": in_memory,
        "disk_cache": on_disk,
        "mmap_files": mapped,
        "hits": {"memory": hits.memory, "disk": hits.disk, "mmap": hits.mmap, "miss": hits.miss},
        "arc_metrics": _arc(settings, memory, in_memory, heats),
        "config": policy,
        "adaptivity_metrics": {
            "ghost_list_hit_rate": in_memory["ghost_entries"]["hit_rate"],
            "p_adaptations": memory.counts.adjustments,
            "T1_T2_ratio": _share(memory.recent, memory.frequent),
            "B1_B2_ratio": _share(memory.recent_ghosts, memory.frequent_ghosts),
        },
        "external_backends": {
            name: {"enabled": False, "hits": 0, "stored": 0, "bytes": 0, "errors": 0} for name in settings.external_backends
        },
    }  # fmt: skip


def _memory(settings: TieredSettings, state: ARCState) -> dict[str, Any]:
    counts = state.counts
    size = state.recent_size + state.frequent_size
    hits = counts.recent_hits + counts.frequent_hits
    asked = hits + counts.misses
    ghosts = counts.recent_ghost_hits + counts.frequent_ghost_hits
    return {
        "maxsize": settings.memory_cache_size,
        "current_size": size,
        "utilization": _share(size, settings.memory_cache_size),
        "item_count": state.recent + state.frequent,
        "hit_rate": _share(hits, asked),
        "T1": {
            "count": state.recent,
            "size": state.recent_size,
            "percent": _share(state.recent_size, size),
            "hit_rate": _share(counts.recent_hits, asked),
        },
        "T2": {
            "count": state.frequent,
            "size": state.frequent_size,
            "percent": _share(state.frequent_size, size),
            "hit_rate": _share(counts.frequent_hits, asked),
        },
        "ghost_entries": {
            "B1": state.recent_ghosts,
            "B2": state.frequent_ghosts,
            "total": state.recent_ghosts + state.frequent_ghosts,
            "hit_rate": _share(ghosts, counts.misses),
        },
        "arc_balance": {
            **_balance(settings, state),
            "t1_t2_ratio": _share(state.recent, state.frequent),
            "adaptivity": _share(counts.adjustments, asked),
        },
        **_moves(state),
        "configuration": {
            "ghost_list_size": settings.arc.ghost_list_size,
            "frequency_weight": settings.arc.frequency_weight,
            "recency_weight": settings.arc.recency_weight,
            "heat_decay_hours": settings.arc.heat_decay_hours,
            "recent_access_boost": settings.arc.access_boost,
        },
    }


def _disk(settings: TieredSettings, directory: Path, now: float, items: Sequence[Item]) -> dict[str, Any]:
    size = sum(item.size for item in items)
    ages = Counter(_age(now - item.added) for item in items)
    return {
        "size_limit": settings.local_cache_size,
        "current_size": size,
        "utilization": _share(size, settings.local_cache_size),
        "entry_count": len(items),
        "by_type": dict(Counter(str((item.metadata or {}).get("type", "unknown")) for item in items)),
        "age_distribution": {name: ages[name] for name in ("under_1hour", "1hour_to_1day", "1day_to_1week", "over_1week")},
        "directory": str(directory),
    }  # fmt: skip


def _arc(settings: TieredSettings, state: ARCState, memory: dict[str, Any], heats: Sequence[float]) -> dict[str, Any]:
    counts = state.counts
    operations = counts.recent_hits + counts.frequent_hits + counts.misses
    both = state.recent + state.frequent
    return {
        "algorithm": "arc",
        "ghost_entries": {
            **memory["ghost_entries"],
            "max_size": 2 * settings.arc.ghost_list_size,
            "utilization": _share(memory["ghost_entries"]["total"], 2 * settings.arc.ghost_list_size),
            "b1_b2_ratio": _share(state.recent_ghosts, state.frequent_ghosts),
        },
        "cache_composition": {
            "T1_count": state.recent,
            "T2_count": state.frequent,
            "T1_percent": _share(state.recent, both),
            "T2_percent": _share(state.frequent, both),
            "t1_t2_ratio": _share(state.recent, state.frequent),
        },
        "arc_balance": {**_balance(settings, state), "adaptivity_rate": _share(counts.adjustments, operations)},
        "heat_score_metrics": {
            "min": min(heats, default=0.0),
            "max": max(heats, default=0.0),
            "avg": sum(heats) / len(heats) if heats else 0.0,
        },
        "configuration": {
            "frequency_weight": settings.arc.frequency_weight,
            "recency_weight": settings.arc.recency_weight,
            "heat_decay_hours": settings.arc.heat_decay_hours,
            "access_boost": settings.arc.access_boost,
        },
        "performance": {
            "hit_rate": memory["hit_rate"],
            "utilization": memory["utilization"],
            "operations": operations,
            **_moves(state),
        },
    }


def _balance(settings: TieredSettings, state: ARCState) -> dict[str, Any]:
    return {
        "p": state.target,
        "p_percent": _share(state.target, settings.memory_cache_size),
        "max_p": settings.memory_cache_size * _MAX_TARGET_SHARE,
        "p_adjustments": state.counts.adjustments,
    }


def _moves(state: ARCState) -> dict[str, Any]:
    counts = state.counts
    return {
        "evictions": {"t1": counts.recent_evictions, "t2": counts.frequent_evictions},
        "promotions": {
            "b1_to_t2": counts.recent_ghost_hits,
            "b2_to_t2": counts.frequent_ghost_hits,
            "t1_to_t2": counts.recent_hits,
        },
    }


def _age(seconds: float) -> str:
    if seconds < HOUR:
        return "under_1hour"
    if seconds < DAY:
        return "1hour_to_1day"
    return "1day_to_1week" if seconds < 7 * DAY else "over_1week"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
