"""How POSIX attributes are written on the bucket (format version 1).

Two places hold them. The *user metadata* of an object goes with our PUT and costs nothing to write. The *attribute object*
of a directory, ``<route root>/.fsdriver/meta/<escaped directory>``, lists every entry that differs from what LIST and the
route's defaults say, so that a listing needs one LIST and one GET. Its body is JSON::

    {"format": "fsdriver-attributes", "version": 1,
     "self": {<record>}, "entries": {"<name>": {<record>}, …}}

A record has ``etag`` (the version it describes), ``kind`` (absent: file), ``mode``, ``uid``, ``gid``, ``atime``, ``mtime``,
``ctime`` (nanoseconds), ``ino``, ``target``, ``rdev``, ``links`` (all route paths of a hard-linked file) and ``xattrs``
(base64 values). Absent fields take the route's defaults.

``"writers": [<mark>, …]``, absent where there are none, names processes that have put objects into the directory whose records
are not here yet: whoever meets an object without a record then asks the object itself.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from fsdriver import names
from fsdriver.entry import Entry, Kind
from fsdriver.errors import Corrupt, InvalidName

log = logging.getLogger(__name__)

FORMAT: Final = "fsdriver-attributes"
FORMAT_VERSION: Final = 1
META_PREFIX: Final = ".fsdriver/meta/"
TARGET_LIMIT: Final = 1024
"""Bytes of an encoded symlink target in user metadata: S3 holds 2 KiB of it in all, a file of ext4 about 4 KiB. A longer one
is in the attribute object alone."""
CARRIED: Final = "carried"
"""In a record of the journal: the object's own metadata says the same. Never written to the store."""

INODE: Final = "fsdriver-ino"
"""Name of the metadata that tells the inode of an object."""

LARGEST: Final = 256 << 20
"""Bytes of an attribute object that is read: more than a million complete records."""
LINKS_MOST: Final = 65_000
"""Names of one file, the limit of ext4."""

Record: TypeAlias = dict[str, Any]

_KINDS: Final = frozenset(kind.value for kind in Kind)
_NUMBERS: Final = {"mode": "mode", "uid": "uid", "gid": "gid", "ino": "ino", "rdev": "rdev"}
_TIMES: Final = {"atime": "atime_ns", "mtime": "mtime_ns", "ctime": "ctime_ns"}
_HIGHEST: Final = {
    "mode": 0xFFFF, "uid": 0xFFFF_FFFE, "gid": 0xFFFF_FFFE, "rdev": 0xFFFF_FFFF, "ino": (1 << 63) - 1,
}  # fmt: skip
"""What the kernel's structures hold; the highest user and group stands for none (chown(2))."""
_EARLIEST: Final = -(1 << 63)
_LATEST: Final = (1 << 63) - 1
_TARGET_MOST: Final = 4095
"""Bytes of a symbolic link: PATH_MAX without the NUL."""


@dataclass(slots=True)
class AttributeObject:
    """The parsed attribute object of one directory; ``version`` is its own etag, "" while it does not exist.

    ``writers`` are marks of processes (see the module).
    """

    own: Record = field(default_factory=dict)
    entries: dict[str, Record] = field(default_factory=dict)
    version: str = ""
    writers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, version: str, key: str) -> AttributeObject:
        """Read the JSON body.

        Raises
        ------
        Corrupt
            Not an attribute object, or one of a newer format: it is left alone.
        """
        try:
            document = json.loads(data)
            if document["format"] != FORMAT:
                raise ValueError(f"format is {document['format']!r}")
            if document["version"] > FORMAT_VERSION:
                raise ValueError(f"format version {document['version']} is newer than this program; upgrade fsdriver")
            entries = {name: record for name, record in document["entries"].items() if isinstance(record, dict)}
            writers = tuple(str(mark) for mark in document.get("writers", ()))
            return cls(dict(document.get("self", {})), entries, version, writers)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Corrupt(f"not a usable attribute object: {error}", key) from error

    def dump(self) -> bytes:
        """The JSON body; equal contents give equal bytes."""
        document: dict[str, Any] = {
            "format": FORMAT, "version": FORMAT_VERSION, "self": self.own, "entries": self.entries,
        }  # fmt: skip
        if self.writers:
            document["writers"] = list(self.writers)
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    def merged(self, changes: Mapping[str, Record | None]) -> AttributeObject:
        """A copy with records replaced (None: removed); the name "" is the directory itself."""
        entries = dict(self.entries)
        own = self.own
        for name, record in changes.items():
            if name == "":
                own = record or {}
            elif record is None:
                entries.pop(name, None)
            else:
                entries[name] = {field: value for field, value in record.items() if field != CARRIED}
        return AttributeObject(own, entries, self.version, self.writers)

    def lacks_records(self, owner: str) -> bool:
        """Whether objects may be without their record here: ``owner`` begins the marks of those whose records are known."""
        return any(not mark.startswith(owner) for mark in self.writers)

    def is_empty(self) -> bool:
        """Nothing to keep: the object need not exist."""
        return not self.own and not self.entries and not self.writers


def to_record(entry: Entry, *, version: str | None = "") -> Record:
    """The record of an entry, complete: whoever reads it needs no defaults but the kind's.

    ``version`` None: what the entry describes is still to be stored, and gets its version then.
    """
    record: Record = {
        "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "ino": entry.ino,
        "atime": entry.atime_ns, "mtime": entry.mtime_ns, "ctime": entry.ctime_ns,
    }  # fmt: skip
    if entry.version and version is not None:
        record["etag"] = entry.version
    if entry.kind is not Kind.FILE:
        record["kind"] = entry.kind.value
    if entry.kind is Kind.SYMLINK:
        record["target"] = entry.target
    if entry.rdev:
        record["rdev"] = entry.rdev
    if entry.links:
        record["links"] = list(entry.links)
    if entry.xattrs:
        record["xattrs"] = {name: base64.b64encode(value).decode() for name, value in entry.xattrs.items()}
    return record


class _Complaints:
    """Who writes records to a bucket must not fill the log of who reads them: each tenfold number of complaints is told."""

    def __init__(self) -> None:
        self._count = 0
        self._next = 1

    def tell(self, error: Exception) -> None:
        self._count += 1
        if self._count >= self._next:
            self._next *= 10
            log.warning(
                "an attribute record is malformed and is ignored (%d so far in this process): %.200r",
                self._count,
                str(error),
            )


_malformed: Final = _Complaints()


def apply_record(entry: Entry, record: Record) -> Entry:
    """``entry`` with the record's fields; what the record lacks stays. A record that makes no sense is left out."""
    try:
        return _apply_record(entry, record)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        _malformed.tell(error)
        return entry


def _apply_record(entry: Entry, record: Record) -> Entry:
    fields: dict[str, Any] = {
        name: _number(short, record[short]) for short, name in (_NUMBERS | _TIMES).items() if short in record
    }
    if "mode" in fields:
        fields["mode"] &= 0o7777
    if "kind" in record:
        fields["kind"] = kind = Kind(record["kind"])
        if kind is Kind.SYMLINK:
            fields["target"] = target = _checked_target(str(record.get("target", "")))
            fields["size"] = len(target.encode(errors="surrogateescape"))
    if "links" in record:
        fields["links"] = _links(record["links"])
    if "xattrs" in record:
        fields["xattrs"] = {
            _xattr_name(name): base64.b64decode(value, validate=True) for name, value in record["xattrs"].items()
        }
    return replace(entry, **fields)


def _number(short: str, value: Any) -> int:
    """A number of a record that the kernel can be told. Raises ValueError."""
    number = int(value)
    least, most = (_EARLIEST, _LATEST) if short in _TIMES else (0, _HIGHEST[short])
    if not least <= number <= most:
        raise ValueError(f"{short} is out of range")
    return number


def _checked_target(target: str) -> str:
    if "\0" in target or len(target.encode(errors="surrogateescape")) > _TARGET_MOST:
        raise ValueError("the target of a symbolic link holds NUL, or is too long")
    return target


def _links(value: Any) -> tuple[str, ...]:
    """Paths within the route; none leads out of it, or to what describes the tree itself. Raises ValueError."""
    if not isinstance(value, list) or len(value) > LINKS_MOST:
        raise ValueError("links are no list of paths")
    for path in value:
        if not isinstance(path, str) or path.partition("/")[0] == names.RESERVED:
            raise InvalidName("a link is no path of a file", str(path))
        for segment in path.split("/"):
            names.check_name(segment)
    return tuple(value)


def _xattr_name(name: str) -> str:
    if not 0 < len(name.encode(errors="surrogateescape")) <= names.NAME_LIMIT or "\0" in name:
        raise ValueError("the name of an extended attribute is empty, too long, or holds NUL")
    return name


def to_metadata(entry: Entry) -> dict[str, str]:
    """User metadata that goes with a PUT: printable ASCII, values percent-encoded, times in nanoseconds, mode octal."""
    metadata = {
        "fsdriver-mode": f"{entry.mode:04o}",
        "fsdriver-uid": str(entry.uid),
        "fsdriver-gid": str(entry.gid),
        "fsdriver-mtime": str(entry.mtime_ns),
        INODE: str(entry.ino),
    }
    for short in ("atime", "ctime"):
        if (when := getattr(entry, _TIMES[short])) != entry.mtime_ns:
            metadata[f"fsdriver-{short}"] = str(when)
    if entry.kind is not Kind.FILE:
        metadata["fsdriver-kind"] = entry.kind.value
    if entry.kind is Kind.SYMLINK and len(target := quote(entry.target, errors="surrogateescape")) <= TARGET_LIMIT:
        metadata["fsdriver-target"] = target
    if entry.rdev:
        metadata["fsdriver-rdev"] = str(entry.rdev)
    return metadata


def apply_metadata(entry: Entry, metadata: Mapping[str, str]) -> Entry:
    """``entry`` with what the user metadata of its object says; malformed foreign values are ignored field by field."""
    fields: dict[str, Any] = {}
    for name, base in (("mode", 8), ("uid", 10), ("gid", 10), ("ino", 10), ("rdev", 10)):
        value = metadata.get(f"fsdriver-{name}", "")
        if value.isdigit() and value.isascii() and len(value) < 20 and (base == 10 or set(value) <= set("01234567")):
            number = int(value, base)
            if number <= _HIGHEST[name]:
                fields[name] = number
    for short, name in _TIMES.items():
        value = metadata.get(f"fsdriver-{short}", "")
        if value.isdigit() and value.isascii() and len(value) < 20 and int(value) <= _LATEST:
            fields[name] = int(value)
    if "mtime_ns" in fields:
        fields.setdefault("atime_ns", fields["mtime_ns"])
        fields.setdefault("ctime_ns", fields["mtime_ns"])
    if "mode" in fields:
        fields["mode"] &= 0o7777
    if metadata.get("fsdriver-kind") in _KINDS:
        fields["kind"] = Kind(metadata["fsdriver-kind"])
        if fields["kind"] is Kind.SYMLINK:
            target = unquote(metadata.get("fsdriver-target", ""), errors="surrogateescape")
            try:
                fields["target"] = _checked_target(target)
                fields["size"] = len(target.encode(errors="surrogateescape"))
            except ValueError:  # lone surrogates among them
                fields["target"], fields["size"] = "", 0
    return replace(entry, **fields)
