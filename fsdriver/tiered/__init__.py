"""Content by name over memory and disk, as the TieredCacheManager of ipfs_kit_py has it, on the cache of this project."""

from __future__ import annotations

from .manager import TieredCacheManager
from .settings import ArcSettings, TieredSettings

__all__ = ["ArcSettings", "TieredCacheManager", "TieredSettings"]
