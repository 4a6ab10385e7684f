"""What the catalog of a stack knows of one object: its version, its copies, its uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from fsdriver.cache.heat import Uses

UNASKED: Final = "?"
"""As the version of a shadowed copy: the tier could not be asked when the object was written or found. What it may have is
older."""


class CopyState(StrEnum):
    """What a copy is good for."""

    GOOD = "good"
    """It is of the record's version."""
    CORRUPT = "corrupt"
    """Its bytes are not those of the version: it is not read, and is made anew from a good one."""
    SHADOWED = "shadowed"
    """Another version, which somebody else put there: it is not read, and goes when the object is replaced or removed."""
    OWED = "owed"
    """It has to go: of an older version, or moved away."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An object in one tier that carries the record's key.

    Attributes
    ----------
    version : str
        That of the tier's own store.
    state : CopyState
    checked : float
        When its bytes were last known to be right (`time.time`); 0.0 never.
    """

    version: str
    state: CopyState = CopyState.GOOD
    checked: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a stack. Immutable: `fsdriver.tiers.catalog.Catalog.swap` replaces it.

    Attributes
    ----------
    key : str
        Below the root of each tier.
    version : str
        Of the object in the stack: the same wherever its bytes are. ``""``: it was removed, and copies still have to go.
    size, mtime_ns : int
        Of its content; a move changes neither.
    copies : mapping of str to Copy
        By the name of the tier.
    sha256 : bytes or None
        Of its content; None as long as nobody has read it whole.
    uses : Uses
        Times in seconds of `time.time`. Not part of what `swap` compares: uses are noted in batches.
    pin : str or None
        The tier it must stay in.
    serial : int
        Grows with every change; 0: the catalog has no such record.
    """

    key: str
    version: str
    size: int
    mtime_ns: int
    copies: Mapping[str, Copy]
    sha256: bytes | None = None
    uses: Uses = field(default_factory=lambda: Uses(0.0, 0.0, 0), compare=False)
    pin: str | None = None
    serial: int = field(default=0, compare=False)

    @property
    def removed(self) -> bool:
        """Only owed copies are left of it."""
        return not self.version

    def holders(self) -> list[str]:
        """Tiers with a good copy."""
        return [tier for tier, copy in self.copies.items() if copy.state is CopyState.GOOD]

    def owed(self) -> dict[str, Copy]:
        """Copies that have to go, by tier."""
        return {tier: copy for tier, copy in self.copies.items() if copy.state is CopyState.OWED}

    def with_copy(self, tier: str, copy: Copy | None) -> Record:
        """The same with another copy in a tier, or none."""
        copies = {name: one for name, one in self.copies.items() if name != tier}
        return replace(self, copies=copies if copy is None else copies | {tier: copy})


@dataclass(frozen=True, slots=True)
class Move:
    """A copy that is owed to a tier, and whether others go once it is there.

    Attributes
    ----------
    key, version : str
        The object, and the version it is about: a move of a version that is no more is dropped.
    target : str
        Name of the tier.
    leaves : tuple of str
        Tiers whose copies go when the target has a verified one.
    reason : str
        The rule or the command behind it, as ``explain`` shows it.
    size : int
        Bytes of the object.
    number : int
        Grows with the order in which they were owed; 0 before.
    failures : int
    not_before : float
        When it is tried again (`time.time`).
    error : str
        What went wrong last.
    """

    key: str
    version: str
    target: str
    leaves: tuple[str, ...] = ()
    reason: str = ""
    size: int = 0
    number: int = 0
    failures: int = 0
    not_before: float = 0.0
    error: str = ""
