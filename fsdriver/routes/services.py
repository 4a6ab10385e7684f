"""What all routes of one engine share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fsdriver.cache import DiskCache, Epochs
from fsdriver.routes.lenders import Lenders
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.staging import Staging
from fsdriver.writeback.uploader import Uploader

WriteMode: TypeAlias = Literal["back", "through"]
Announce: TypeAlias = Callable[[str, Sequence[str]], Awaitable[None]]
"""Tells the daemons of this host that keys of a store changed: ``announce(identity, keys)``."""


@dataclass(frozen=True, slots=True)
class Services:
    """The engine's parts a route works with; ``uploader`` is the one of the route's own store; a daemon has no lenders."""

    journal: Journal
    staging: Staging
    cache: DiskCache
    epochs: Epochs
    uploader: Uploader
    announce: Announce | None
    lenders: Lenders | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a route's configuration says about its operations.

    Attributes
    ----------
    write : {"back", "through"}
        When a change is acknowledged: the journal has it, or the tiers have it.
    fsync : {"local", "remote"}
        What fsync waits for.
    ttl, negative_ttl : float
        Seconds; infinite for immutable routes.
    read_only, posix, foreign_metadata : bool
    most_remembered : int
        Bytes of memory that names and attributes of the route may take.
    quota : int or None
        Bytes that statfs reports.
    timeout : float
        Seconds one change may wait for the tiers.
    """

    write: WriteMode
    fsync: Literal["local", "remote"]
    ttl: float
    negative_ttl: float
    read_only: bool
    posix: bool
    foreign_metadata: bool
    most_remembered: int
    quota: int | None
    timeout: float
