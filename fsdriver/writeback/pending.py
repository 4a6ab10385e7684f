"""What staging owes to the stores, as rows: the vocabulary of the journal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fsdriver.attributes import Record
from fsdriver.backends.model import ABSENT
from fsdriver.errors import FsdriverError

UNKNOWN: Final = "?"
"""As ``base``: the version is being made by an upload under way; its completion fills it in."""


STILL_READ: Final = "a file that is open on this host still reads it"
"""As ``error``: a removal that waits for the last close; nobody waits for it."""


INTERRUPTED: Final = "its upload was cut off when a process ended"
"""As ``error``: the store may have what the row says already."""


TRANSIENT: Final = "transient"
"""Set in a record that goes no further than the journal: its route keeps no attributes on the store."""


REPAIR: Final = "fsdriver fsck repairs it"


class Action(StrEnum):
    """What shall become of a key."""

    PUT = "put"
    COPY = "copy"
    MARKER = "marker"
    DELETE = "delete"


def read_record(text: object) -> Record | None:
    """A record as the journal keeps it.

    Raises
    ------
    FsdriverError
        It is none: the database is damaged.
    """
    try:
        parsed = json.loads(text) if text else None  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as error:
        raise FsdriverError(f"the journal is damaged: a record cannot be read ({error}); {REPAIR}") from error
    if parsed is not None and not isinstance(parsed, dict):
        raise FsdriverError(f"the journal is damaged: a record is none; {REPAIR}")
    return parsed


@dataclass(frozen=True, slots=True)
class Pending:
    """One row: what one key owes.

    Attributes
    ----------
    store, key : str
        Identity of the backend and full key.
    parent : str
        Key prefix of the directory that lists it, ending in ``/`` (or empty).
    seq : int
        Rises with every change of the row; a completion that carries an older one does not remove it.
    root, path : str
        Key prefix of the route, and the path in it: where the attribute object is, and what to call it in messages.
    base : str or None
        Version the store holds now: "" none, `UNKNOWN` being uploaded, None not to be checked.
    staging : str or None
        Local file with the bytes (`Action.PUT`).
    source, source_version : str or None
        Key and version to copy from (`Action.COPY`).
    size : int
        Bytes.
    record : dict or None
        Attribute record of the entry, always the newest there is; see `kept`.
    inflight : bool
        It is being carried out.
    held : bool
        Its file was synced but is still being written: kept against a crash, not sent and not shown to other processes.
    """

    store: str
    key: str
    parent: str
    seq: int
    action: Action
    root: str
    path: str
    base: str | None = None
    staging: str | None = None
    source: str | None = None
    source_version: str | None = None
    size: int = 0
    record: Record | None = None
    inflight: bool = False
    held: bool = False
    attempts: int = 0
    error: str | None = None

    @property
    def doubtful(self) -> bool:
        """It was tried before, and may have been carried out."""
        return self.error is not None

    @property
    def interrupted(self) -> bool:
        """A process that died was uploading it: the store may have it, and ``base`` may not be what is there."""
        return self.error is not None and self.error.startswith(INTERRUPTED)

    @property
    def never_stored(self) -> bool:
        """The store has nothing under the key, and nothing is on the way to it."""
        return self.base == ABSENT and not self.inflight and not self.interrupted

    @property
    def kept(self) -> bool:
        """Its record belongs on the store."""
        return self.record is not None and TRANSIENT not in self.record


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """One record an attribute object still lacks; ``record`` None removes it, name "" is the directory itself."""

    store: str
    root: str
    directory: str
    name: str
    record: Record | None
    seq: int = 0
