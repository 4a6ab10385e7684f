"""What is remembered of one directory: its entries, what is known not to exist, and its attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fsdriver.attributes import AttributeObject
from fsdriver.entry import Entry, Kind


class Missing:
    """The type of `MISSING`."""


MISSING: Final = Missing()
"""Known not to exist."""

Known: TypeAlias = Entry | Missing
"""What is remembered of a path."""

MOST_ABSENT: Final = 10_000
"""Names of one directory that are known not to exist."""
NEVER: Final = float("-inf")
# Bytes of Python objects, measured with names of 16 characters: an estimate that bounds, not a count.
_DIRECTORY_BYTES: Final = 850
_ENTRY_BYTES: Final = 450
_TOLD_BYTES: Final = 65
_ABSENT_BYTES: Final = 120
_RECORD_BYTES: Final = 650


@dataclass(frozen=True, slots=True)
class Question:
    """When the store was asked about directories that nobody had in mind yet, and what had been changed by then."""

    at: float
    epochs: bytes


@dataclass(slots=True)
class Directory:
    """What is remembered of one directory.

    Attributes
    ----------
    slot, epoch : int
        Where all processes see its epoch, and what that was when it was learned.
    entries : dict
        Known entries by name.
    learned : dict
        When an entry was learned, of those that are not from the listing.
    absent : dict
        Names known not to exist, with the time that was learned.
    unverified : set of str
        Names whose attribute record is of another version: they need a HEAD before their attributes are told.
    subdirectories : int
        How many of `entries` are directories.
    listed_at : float
        When the listing was told that `entries` is from.
    complete_at : float
        When `entries` last was the whole directory.
    generation : object
        Made anew whenever names or attributes here change: equal ones stand for equal listings.
    own, own_at : Entry, float
        Attributes of the directory itself.
    attributes, attributes_at : AttributeObject, float
        Its attribute object.
    changes : dict or None
        While a listing is under way: what this process changed meanwhile.
    weighed : int
        `weight` when that was last looked at.
    """

    slot: int
    epoch: int
    entries: dict[str, Entry] = field(default_factory=dict)
    learned: dict[str, float] = field(default_factory=dict)
    absent: dict[str, float] = field(default_factory=dict)
    unverified: set[str] = field(default_factory=set)
    subdirectories: int = 0
    listed_at: float = NEVER
    complete_at: float = NEVER
    generation: object = field(default_factory=object)
    own: Entry | None = None
    own_at: float = NEVER
    attributes: AttributeObject | None = None
    attributes_at: float = NEVER
    changes: dict[str, Entry | None] | None = None
    weighed: int = 0

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        records = 0 if self.attributes is None else len(self.attributes.entries)
        return (
            _DIRECTORY_BYTES
            + len(self.entries) * _ENTRY_BYTES
            + len(self.learned) * _TOLD_BYTES
            + len(self.absent) * _ABSENT_BYTES
            + records * _RECORD_BYTES
        )

    def told_at(self, name: str) -> float:
        """When a known name was last told about."""
        return max(self.learned.get(name, NEVER), self.listed_at)

    def fill(self, entries: dict[str, Entry], unverified: set[str], when: float) -> None:
        """``entries`` are the whole directory, as it was told then; all that was known before is out of date."""
        self.entries = entries
        self.subdirectories = sum(entry.kind is Kind.DIRECTORY for entry in entries.values())
        self.learned.clear()
        self.absent.clear()
        self.unverified = unverified
        self.listed_at = self.complete_at = when
        self.generation = object()

    def put(self, name: str, entry: Entry | None, now: float) -> None:
        """One name is told about; None: it does not exist."""
        self.unverified.discard(name)
        self.generation = object()
        if entry is None:
            self._remove(name)
            self.learned.pop(name, None)
            self.absent[name] = now
            if len(self.absent) > MOST_ABSENT:
                self.absent.clear()
            return
        self.absent.pop(name, None)
        known = self.entries.get(name)
        self.subdirectories += entry.kind is Kind.DIRECTORY
        self.subdirectories -= known is not None and known.kind is Kind.DIRECTORY
        self.entries[name] = entry
        self.learned[name] = now

    def forget(self, name: str) -> None:
        """Nothing is known of one name any more; so the directory is not known as a whole either."""
        self._remove(name)
        self.absent.pop(name, None)
        self.learned.pop(name, None)
        self.complete_at = NEVER
        self.generation = object()

    def _remove(self, name: str) -> None:
        if (known := self.entries.pop(name, None)) is not None:
            self.subdirectories -= known.kind is Kind.DIRECTORY
