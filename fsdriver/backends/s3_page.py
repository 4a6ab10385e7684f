"""Reading one page of a ListObjectsV2 answer (Amazon S3 API Reference), exactly.

What every server writes, elements without attributes in any order, is read with four regular expressions: a quarter of
the processor time of expat, which reads everything else. Both refuse an answer that was cut off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus
from xml.parsers import expat

from fsdriver.backends.model import ObjectInfo, Page
from fsdriver.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

_END: Final = "</ListBucketResult>"
_UNUSUAL: Final = re.compile(r"<!|<Contents[^>]|<Contents/>|<(?:Key|Size|ETag|LastModified)[ /]")
"""Comments, character data sections and attributes: for expat."""
_KEY: Final = re.compile("<Key>([^<]*)</Key>")
_SIZE: Final = re.compile("<Size>([0-9]{1,19})</Size>")
_TAG: Final = re.compile('<ETag>(?:&#34;|&quot;|")?([!#-%\'-;=-~]*)(?:&#34;|&quot;|")?</ETag>')
"""Printable ASCII: an etag is sent back in headers."""
_TIME: Final = re.compile("<LastModified>([^<]*)</LastModified>")
_PREFIXES: Final = re.compile("<CommonPrefixes><Prefix>([^<]*)</Prefix></CommonPrefixes>")
_TOKEN: Final = re.compile("<NextContinuationToken>([^<]*)</NextContinuationToken>")
_LARGEST: Final = (1 << 63) - 1
"""Bytes of a file (off_t)."""
_LONG_SIZE: Final = len(str(_LARGEST))


@dataclass(slots=True)
class _Answer:
    """State of the parser of one ListBucketResult (Amazon S3 API Reference, ListObjectsV2)."""

    objects: list[ObjectInfo] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    token: str | None = None
    encoded: bool = False
    complete: bool = False
    _text: list[str] = field(default_factory=list)
    _fields: dict[str, str] = field(default_factory=dict)
    _inside: str = ""

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._text.clear()
        if name in {"Contents", "CommonPrefixes"}:
            self._inside = name
            self._fields = {}

    def end(self, name: str) -> None:
        text = "".join(self._text)
        self._text.clear()
        if name == "Contents":
            self.objects.append(self._object())
            self._inside = ""
        elif name == "CommonPrefixes":
            self.prefixes.append(self._fields.get("Prefix", ""))
            self._inside = ""
        elif self._inside:
            self._fields.setdefault(name, text)
        elif name == "NextContinuationToken":
            self.token = text or None
        elif name == "EncodingType":
            self.encoded = text == "url"
        elif name == "ListBucketResult":
            self.complete = True

    def text(self, data: str) -> None:
        self._text.append(data)

    def _object(self) -> ObjectInfo:
        fields = self._fields
        size, version = int(fields["Size"]), fields.get("ETag", "").strip('"')
        if not 0 <= size <= _LARGEST or not (version.isascii() and version.isprintable()):
            raise ValueError(f"no object has {size} bytes and the etag {version!r}")
        return ObjectInfo(
            key=fields["Key"],
            size=size,
            mtime_ns=nanoseconds(datetime.fromisoformat(fields["LastModified"])),
            version=version,
        )


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since the epoch of an aware (or UTC) time, without the rounding of floats."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def parse(body: bytes, prefix: str = "", asked: str | None = None) -> tuple[Page, str | None]:
    """One page and the token of the next.

    Parameters
    ----------
    prefix : str
        All keys are to begin with it.
    asked : str, optional
        The token that this page was asked for with.

    Raises
    ------
    BackendError
        The answer is cut off, is no listing, holds what was not asked for, or leads in a circle.
    """
    page, token = _scan(body) or _parse_any(body)
    if not (all(one.key.startswith(prefix) for one in page.objects) and all(map(_below(prefix), page.prefixes))):
        raise _broken(f"the listing holds keys that do not begin with {prefix!r}")
    if token is not None and token == asked:
        raise _broken("the listing goes on with the page it just gave")
    return page, token


def _below(prefix: str) -> Callable[[str], bool]:
    return lambda one: one.startswith(prefix) and one.endswith("/")


def _scan(body: bytes) -> tuple[Page, str | None] | None:
    """The page, or None where only a complete parser can tell."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    if not text.rstrip().endswith(_END) or "<ListBucketResult" not in text[:200] or _UNUSUAL.search(text, 1):
        return None
    keys, sizes, tags, times = _KEY.findall(text), _SIZE.findall(text), _TAG.findall(text), _TIME.findall(text)
    prefixes, tokens = _PREFIXES.findall(text), _TOKEN.findall(text)
    if {len(keys), len(sizes), len(tags), len(times)} != {text.count("<Contents>")}:
        return None
    if len(prefixes) != text.count("<CommonPrefixes>") or any("&" in one for one in (*prefixes, *tokens)):
        return None
    encoded = "<EncodingType>url</EncodingType>" in text
    moments: dict[str, int] = {}
    objects = []
    for raw, size, tag, time in zip(keys, sizes, tags, times, strict=True):
        if "&" in raw:
            return None
        key = unquote_plus(raw) if encoded and ("%" in raw or "+" in raw) else raw
        moment = moments.get(time)
        if moment is None:
            try:
                moment = moments[time] = nanoseconds(datetime.fromisoformat(time))
            except (ValueError, OverflowError):
                return None
        if len(size) == _LONG_SIZE and int(size) > _LARGEST:
            return None
        objects.append(ObjectInfo(key, int(size), moment, tag))
    decoded = [unquote_plus(prefix) for prefix in prefixes] if encoded else prefixes
    return Page(objects, decoded), tokens[0] if tokens and tokens[0] else None


def _parse_any(body: bytes) -> tuple[Page, str | None]:
    answer = _Answer()
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True
    parser.StartElementHandler = answer.start
    parser.EndElementHandler = answer.end
    parser.CharacterDataHandler = answer.text
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, KeyError, ValueError, OverflowError) as error:
        raise _broken(f"the listing cannot be read: {error!r}") from error
    if not answer.complete:
        raise _broken("the answer is no listing")
    decode: Callable[[str], str] = unquote_plus if answer.encoded else str
    objects = [
        ObjectInfo(decode(one.key), one.size, one.mtime_ns, one.version) if answer.encoded else one
        for one in answer.objects
    ]
    return Page(objects, [decode(prefix) for prefix in answer.prefixes]), answer.token


def _refuse_document_type(*_: object) -> None:
    """No service sends one: it could define entities that expand without end, or that lead to files."""
    raise ValueError("it declares a document type")


def _broken(message: str) -> BackendError:
    error = BackendError(message)
    error.temporary = True
    return error
