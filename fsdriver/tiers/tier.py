"""One tier: a backend with a name and a root, as a stack sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fsdriver.backends.model import ObjectInfo
from fsdriver.backends.store import Store

VERSION: Final = "fsdriver-version"
"""User metadata of a copy that was not made by a write: the version of the object in the stack."""
NO_VERSION: Final = "-"
"""Of directories, to which some servers give none."""
MODIFIED: Final = "fsdriver-modified"
"""With it: when the object was written, nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Tier:
    """See the module.

    Attributes
    ----------
    name : str
        Of the backend in the configuration.
    backend : Store
        One service.
    prefix : str
        Of the tier's root, without ``/`` at its ends.
    """

    name: str
    backend: Store
    prefix: str

    @property
    def root(self) -> str:
        """What all keys of the tier begin with."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def writable(self) -> bool:
        """Copies can be made and removed here."""
        return not self.backend.capabilities.read_only

    @property
    def reachable(self) -> bool:
        """It is not known to be out of reach."""
        return not self.backend.outage.active

    def key(self, key: str) -> str:
        """Key in the tier's store of a key of the stack."""
        return self.root + key

    def own(self, key: str) -> str:
        """Key of the stack of a key in the tier's store."""
        return key.removeprefix(self.root)


def version_of(info: ObjectInfo) -> str:
    """The version in the stack of what lies in a tier: its own, unless it is a copy of another."""
    return (info.metadata or {}).get(VERSION) or info.version or NO_VERSION


def modified_ns(info: ObjectInfo) -> int:
    """When the object was written, also if this is a copy that was made later."""
    told = (info.metadata or {}).get(MODIFIED, "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else info.mtime_ns


def marks(version: str, mtime_ns: int) -> dict[str, str]:
    """User metadata of a copy."""
    return {VERSION: version, MODIFIED: str(mtime_ns)}


def without_marks(metadata: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """User metadata as the writer gave it."""
    if not metadata or VERSION not in metadata:
        return metadata
    return {name: value for name, value in metadata.items() if name not in {VERSION, MODIFIED}}
