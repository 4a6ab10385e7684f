"""What a row of the journal sends: the bytes of its staging file, as they are at one moment, and the metadata beside them."""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from fsdriver.attributes import META_PREFIX, apply_record, to_metadata
from fsdriver.backends.source import BEING_WRITTEN
from fsdriver.backends.store import Store
from fsdriver.entry import Entry, Kind
from fsdriver.errors import Unsettled
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.pending import Action, Pending
from fsdriver.writeback.staging import Signature, Staging, digest_of, signature

log = logging.getLogger(__name__)

INLINE: Final = 256 << 10
"""Bytes up to which a file is read where it is sent: it was written a moment ago, and a thread would cost more."""


CONFLICTS_TOLD: Final = 100
"""Conflicts that ``status`` lists, the latest."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another writer was faster.

    Attributes
    ----------
    path : str
        Within the route.
    root : str
        Key prefix of the route.
    kept : str
        Path under which the bytes written here are kept; "" if there were none.
    time : float
        Seconds since the epoch.
    """

    path: str
    root: str
    kept: str
    time: float


@dataclass(slots=True)
class UploadCounters:
    """For ``status``."""

    uploaded: int = 0
    bytes: int = 0
    copied: int = 0
    deleted: int = 0
    conflicts: int = 0
    failures: int = 0
    last_error: str = ""
    lost: deque[Conflict] = field(default_factory=lambda: deque(maxlen=CONFLICTS_TOLD))


@dataclass(frozen=True, slots=True)
class Sent:
    """A row that was carried out.

    Attributes
    ----------
    row : Pending
    version : str
        What the store gave; "" none.
    signature : Signature or None
        What the staging file was like.
    carried : bool
        The object's own metadata say all that its record does.
    """

    row: Pending
    version: str
    signature: Signature | None
    carried: bool = False


class MovedAway(Exception):
    """The bytes of a row are in another staging file by now; ``row`` tells which."""

    def __init__(self, row: Pending) -> None:
        super().__init__(row.path)
        self.row = row


class Outgoing:
    """See the module; shared by those who send to one store.

    Parameters
    ----------
    backend : Store
    journal : Journal
    staging : Staging
    """

    def __init__(self, backend: Store, journal: Journal, staging: Staging) -> None:
        self.backend = backend
        self.journal = journal
        self.staging = staging
        self.counters = UploadCounters()

    def metadata(self, row: Pending) -> dict[str, str] | None:
        """What the object says of itself; None where the row or the store keeps no metadata."""
        return to_metadata(self._entry(row)) if row.kept and self.backend.capabilities.metadata else None

    def carries(self, row: Pending) -> bool:
        """Whether the object that was put for a row says in its metadata all that the row's record does."""
        record = row.record or {}
        return (
            row.action is Action.PUT
            and row.kept
            and self.backend.capabilities.metadata
            and not ("links" in record or "xattrs" in record)
            and ("target" not in record or "fsdriver-target" in to_metadata(self._entry(row)))
        )

    def one_state(self, path: str, descriptor: int, before: Signature) -> bytes:
        """All bytes of a small staging file, as they were at one moment. Raises Unsettled."""
        data = os.pread(descriptor, before[0], 0)
        opened = self.staging.opened(path)
        # Two readings that agree are what the file held between them, whatever its times say.
        again = data if opened is None else os.pread(descriptor, before[0] + 1, 0)
        if again != data or signature(descriptor) != before:
            raise Unsettled(BEING_WRITTEN)
        if opened is not None:
            # Nothing is written back, so a later store through a mapping may move no time: the bytes are looked at again.
            opened.digest = digest_of(data)
        return data

    def is_blind(self, row: Pending) -> bool:
        """Whether a row replaces whatever is there, of a store that could be asked to replace one version only.

        It is sent on a condition all the same. A request that outlives its process may arrive after those of the next one:
        without a condition it would undo them.
        """
        able = self.backend.capabilities
        if row.base is not None or not (able.conditional_put and able.strong_versions):
            return False
        inside = row.key.removeprefix(f"{row.root}/" if row.root else "")
        return not (
            row.key.endswith("/") or inside.startswith(META_PREFIX)
        )  # those are of directories, and say nothing new

    def must_stand(self, row: Pending) -> None:
        """Raise MovedAway if the row's bytes are in another staging file by now: somebody writes to that one."""
        current = self.journal.get(row.store, row.key)
        if current is not None and current.seq == row.seq and current.staging != row.staging:
            raise MovedAway(replace(row, staging=current.staging))

    def send_again(self, row: Pending, size: int) -> None:
        """The file moved while it was sent; a row that was replaced meanwhile stands for the newer bytes already."""
        with self.journal.transaction():
            current = self.journal.get(row.store, row.key)
            if current is not None and current.seq == row.seq:
                log.info("%s changed while it was uploaded; it is sent again", row.path)
                self.journal.write(replace(current, size=size))

    def _entry(self, row: Pending) -> Entry:
        return apply_record(Entry(Kind.FILE, size=row.size), row.record or {})
