"""The identity of cached bytes: store, key and version, never a route or a credential."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

from .cipher import Cipher, stored_size
from .encrypted import EncryptedFile
from .files import LocalFile

Fetch: TypeAlias = Callable[[int, int], Awaitable[memoryview]]
"""Bytes ``start`` to ``end`` (exclusive) of one version of one object; raises Stale if the object has changed."""
FetchNow: TypeAlias = Callable[[], memoryview | None]
"""The whole object, in the calling thread and in one attempt; None: it failed, `Fetch` will say why."""

_PLACES: Final = 8192


def digest(text: str) -> str:
    """First 128 bits of SHA-256 in hexadecimal; names files on disk, protects nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@lru_cache(maxsize=_PLACES)
def _place(store: str, key: str, version: str, size: int, codec: str) -> str:
    """Every open of a file asks for this, and the same files are opened again and again."""
    # What was encrypted with a key has a place of its own: who has another key, or none, does not come upon it.
    version = digest(f"{version}\0{size}\0{codec}" if codec else f"{version}\0{size}")
    return f"{home(store, key)}/{version}"


def home(store: str, key: str) -> str:
    """Path of the directory of an object's versions below ``objects/``, as text."""
    return f"{digest(store)}/{digest(key)}"


@dataclass(frozen=True, slots=True)
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
    cipher : Cipher or None
        What its cache files are encrypted with; that of the cache (`DiskCache.key`).
    """

    store: str
    key: str
    version: str
    size: int
    cipher: Cipher | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Path of the sealed file below ``objects/``, as text."""
        return _place(self.store, self.key, self.version, self.size, self.codec)

    @property
    def codec(self) -> str:
        """How its cache files are encrypted; empty if they are not."""
        return "" if self.cipher is None else self.cipher.codec

    @property
    def stored(self) -> int:
        """Bytes of the sealed file."""
        return self.size if self.cipher is None else stored_size(self.size)

    def file(self, descriptor: int) -> LocalFile:
        """The open cache file of a descriptor."""
        if self.cipher is None:
            return LocalFile(descriptor)
        return EncryptedFile(descriptor, self.cipher.of(self.store, self.key, self.version, str(self.size)))

    @property
    def relative(self) -> Path:
        """Path of the sealed file below ``objects/``."""
        return Path(self.place)

    @property
    def label(self) -> str:
        """The object as error messages name it."""
        return f"{self.store}|{self.key}"
