"""Keys and entries of one route: pure translation between names, objects, records and what faces show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from fsdriver import names
from fsdriver.attributes import META_PREFIX, Record, apply_metadata, apply_record
from fsdriver.backends.base import ObjectInfo
from fsdriver.backends.store import Store
from fsdriver.entry import Entry, Kind
from fsdriver.writeback.pending import Action, Pending

_FILE: Final = Kind.FILE


@dataclass(frozen=True, slots=True)
class Defaults:
    """Attributes of what has no attribute record."""

    mode: int
    directory_mode: int
    uid: int
    gid: int
    born_ns: int


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """A file that is being written and that only this process knows.

    Attributes
    ----------
    entry : Entry
    base : str or None
        Version the store holds under that path: ABSENT ("") if none.
    closed : Entry or None
        What all others go on seeing under that path: the version that was closed last, if there is one.
    """

    entry: Entry
    base: str | None
    closed: Entry | None = None


class Entries:
    """Translation for one route; asks nothing and remembers nothing.

    Parameters
    ----------
    backend : Store
    prefix : str
        Key prefix of the route's root, without slashes at its ends.
    defaults : Defaults
    foreign_metadata : bool
        An object without attribute record is described by its user metadata.
    """

    def __init__(self, backend: Store, prefix: str, defaults: Defaults, *, foreign_metadata: bool) -> None:
        self.backend = backend
        self.prefix = prefix
        self.root_key = f"{prefix}/" if prefix else ""
        self.defaults = defaults
        self.foreign_metadata = foreign_metadata
        self._inode_salt = f"{backend.identity}|".encode(errors="surrogateescape")

    # -- keys --------------------------------------------------------------------------------------------------------

    def key(self, path: str) -> str:
        """Full key of a file's path."""
        key = names.to_key(path, self.root_key)
        limit = self.backend.capabilities.segment_limit
        if limit is not None and len(key) * 4 > limit:
            names.check_segments(key, limit)
        return key

    def directory_key(self, path: str) -> str:
        """Key of a directory's marker: ends in ``/``, or is empty for the root of a container."""
        if not path:
            return self.root_key
        key = f"{self.key(path)}/"
        return key if len(key) <= names.KEY_LIMIT // 4 else self.places(path)[0]

    def places(self, path: str) -> tuple[str, ...]:
        """Key prefixes under which the children of a directory lie (`names.places`), the first being its marker's key."""
        return names.places(path, self.root_key)

    def meta_key(self, directory: str) -> str:
        """Key of a directory's attribute object."""
        return f"{self.root_key}{META_PREFIX}{names.escape_directory(directory)}"

    def inode(self, key: str) -> int:
        """The 63-bit inode number an object gets at its creation."""
        digest = hashlib.sha256(self._inode_salt + key.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") >> 1 | 2

    def _epoch_name(self, path: str) -> str:
        return f"{self.backend.identity}|{self.directory_key(path)}"

    # -- entries -----------------------------------------------------------------------------------------------------

    def new_directory(self, path: str, mtime_ns: int | None = None) -> Entry:
        """A directory with the route's defaults."""
        d, when = self.defaults, mtime_ns or self.defaults.born_ns
        return Entry(
            Kind.DIRECTORY, mode=d.directory_mode, uid=d.uid, gid=d.gid, atime_ns=when, mtime_ns=when, ctime_ns=when,
            ino=1 if not path else self.inode(self.directory_key(path)),
        )  # fmt: skip

    def from_object(self, info: ObjectInfo, record: Record | None, *, partial: bool = False) -> tuple[Entry, bool]:
        """Entry of an object, and whether its attributes still need a HEAD.

        ``partial``: its attribute object may lack records that the objects themselves carry.
        """
        d, when = self.defaults, info.mtime_ns
        # By position: listings make a great many.
        entry = Entry(_FILE, info.size, info.version, d.mode, d.uid, d.gid, when, when, when, self.inode(info.key))
        if record is None and info.metadata is None:
            return entry, partial or self.foreign_metadata
        native = self.backend.capabilities.list_metadata
        asked = record is not None or partial or self.foreign_metadata
        if record is not None and record.get("etag", "") == info.version:
            return apply_record(entry, record), False
        if info.metadata is not None:
            if native or asked or "fsdriver-kind" in info.metadata:
                entry = apply_metadata(entry, info.metadata)
            return entry, False
        return entry, asked

    def from_pending(self, row: Pending) -> Entry:
        """Entry of a key that the journal still owes something."""
        if row.action is Action.MARKER:
            entry = self.new_directory(row.path)
        else:
            entry = Entry(
                Kind.FILE, size=row.size, version=row.source_version, staging=row.staging, key=row.source,
                mode=self.defaults.mode, uid=self.defaults.uid, gid=self.defaults.gid, ino=self.inode(row.key),
            )  # fmt: skip
        return apply_record(entry, row.record) if row.record and row.action is not Action.MARKER else entry
