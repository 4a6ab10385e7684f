"""Configuration: one TOML dialect, one set of models, one way to find and to explain it."""

from __future__ import annotations

from fsdriver.config.loading import find_config, from_url, load
from fsdriver.config.models import (
    BackendConfig,
    CacheConfig,
    CatalogConfig,
    Config,
    PolicyConfig,
    RouteConfig,
    TierPolicyConfig,
)
from fsdriver.config.places import cache_dir, offered_dirs, offering_dir, runtime_dir, state_dir
from fsdriver.config.values import SecretRef, reveal, reveal_key

__all__ = [
    "BackendConfig",
    "CacheConfig",
    "CatalogConfig",
    "Config",
    "PolicyConfig",
    "RouteConfig",
    "SecretRef",
    "TierPolicyConfig",
    "cache_dir",
    "find_config",
    "from_url",
    "load",
    "offered_dirs",
    "offering_dir",
    "reveal",
    "reveal_key",
    "runtime_dir",
    "state_dir",
]
