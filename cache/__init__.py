"""Bytes kept near: sealed and partial files on disk shared by processes, fills, and metadata with a time to live."""

from __future__ import annotations

from .arc import ARCCache, ARCState
from .blocks import BLOCK
from .checking import Checker
from .checking import State as FileState
from .cipher import Cipher
from .disk import DiskCache
from .epochs import Epochs
from .files import LentFile, LocalFile, write_all
from .index import Index
from .keys import Fetch, FetchNow, ObjectKey
from .manual import Evicted
from .reader import Reader
from .stats import CacheStats
from .sums import Checksum
from .ttl import TTLCache

__all__ = [
    "BLOCK",
    "ARCCache",
    "ARCState",
    "CacheStats",
    "Checker",
    "Checksum",
    "Cipher",
    "DiskCache",
    "Epochs",
    "Evicted",
    "Fetch",
    "FetchNow",
    "FileState",
    "Index",
    "LentFile",
    "LocalFile",
    "ObjectKey",
    "Reader",
    "TTLCache",
    "write_all",
]
