"""The identity of cached bytes: store, key and version, never a route or a credential."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

Fetch: TypeAlias = Callable[[int, int], Awaitable[memoryview]]
"""Bytes ``start`` to ``end`` (exclusive) of one version of one object; raises Stale if the object has changed."""


def digest(text: str) -> str:
    """First 128 bits of SHA-256 in hexadecimal; names files on disk, protects nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class ObjectKey:
    """One version of one object.

    Attributes
    ----------
    store : str
        Scheme, endpoint or account, and container (`Backend.identity`).
    key : str
        Full key in the container.
    version : str
        ETag or generation.
    size : int
        Bytes.
    """

    store: str
    key: str
    version: str
    size: int

    @cached_property
    def place(self) -> str:
        """Path of the sealed file below ``objects/``, as text."""
        version = digest(f"{self.version}\0{self.size}")
        return f"{digest(self.store)}/{digest(self.key)}/{version}"

    @property
    def relative(self) -> Path:
        """Path of the sealed file below ``objects/``."""
        return Path(self.place)

    @property
    def label(self) -> str:
        """The object as error messages name it."""
        return f"{self.store}|{self.key}"
