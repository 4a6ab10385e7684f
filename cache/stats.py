"""Counts of one process's disk cache."""

from __future__ import annotations

from dataclasses import dataclass

from .tier import MemoryStats


@dataclass(slots=True)
class Counts:
    """What this process did; plain integers, changed under the cache's lock or on the event loop."""

    hits: int = 0
    misses: int = 0
    borrowed: int = 0
    fetches: int = 0
    fetched_bytes: int = 0
    failed_fetches: int = 0
    sealed: int = 0
    refused: int = 0
    uncached: int = 0
    corrupt: int = 0
    evictions: int = 0
    evicted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """State of the disk cache.

    Attributes
    ----------
    bytes, entries : int
        Sealed and partial files of all processes, as the index counts them.
    size : int
        Byte bound.
    pinned : int
        Pinned objects.
    open, filling : int
        Sealed files open in, and fills under way in, this process.
    buffers : int
        Bytes of fetched buffers this process holds.
    memory : MemoryStats
        The memory tier of this process.
    encryption : str
        ``off``, or the algorithm and which key it is.
    unread : int
        Bytes of files that are encrypted with another key, or not at all; 0 while encryption is off.
    hits, misses : int
        Opens of this process that found a sealed file, and those that did not.
    borrowed : int
        Of the misses, those read from the cache of another user, whose daemon handed the file over.
    fetches, fetched_bytes, failed_fetches : int
        Requests to the stores.
    sealed, refused, uncached : int
        Files sealed; files that found no room; fills that went on without the disk (object over the bound, disk full).
    corrupt : int
        Times that bytes on disk were not those written there; they were fetched anew.
    evictions, evicted_bytes : int
    """

    bytes: int
    entries: int
    size: int
    pinned: int
    open: int
    filling: int
    buffers: int
    memory: MemoryStats
    encryption: str
    unread: int
    hits: int
    misses: int
    borrowed: int
    fetches: int
    fetched_bytes: int
    failed_fetches: int
    sealed: int
    refused: int
    uncached: int
    corrupt: int
    evictions: int
    evicted_bytes: int
