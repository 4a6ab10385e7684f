r"""Names in the tree to keys in the store and back: one pure, bijective mapping.

A *name* is what programs see: any bytes but ``/`` and NUL, held as `str` with the ``surrogateescape`` convention of
`os.fsdecode`. A *key* is what the store holds: valid UTF-8 without control characters.

- Bytes 0x00-0x1F, 0x7F, ``\`` and bytes that are not UTF-8 become ``%XX`` (upper-case hexadecimal).
- A literal ``%XX`` in a name that would be read back as one of those has its ``%`` escaped as ``%25``; so does a
  literal that already looks escaped (``%250A``), to any depth. Every other ``%`` stays: ``100%``, ``%41`` and the
  ``%C3%A9`` of a URL-encoded "é" (which is valid UTF-8, hence never written by us) are shown as they are.
- A path whose key would be over 1,024 bytes lies under a *fold*: ``.fsdriver/deep/<digest of a directory>/`` and what
  follows that directory. `places` tells where the children of a directory may be.
- A key is shown only if its name leads back to it. Keys with raw control characters, empty, ``.`` or ``..`` segments,
  or a ``/`` at either end have no name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from fsdriver.errors import InvalidName, NameTooLong

NAME_LIMIT: Final = 255
"""Bytes of one name: NAME_MAX of Linux."""
KEY_LIMIT: Final = 1024
"""Bytes of one key: the limit of S3, GCS and Azure."""
FILE_SUFFIX: Final = "%file"
"""Appended to an object's name where a directory has the same one."""
RESERVED: Final = ".fsdriver"
"""First segment, at a route's root, of the objects that describe the tree itself."""
FOLDS: Final = f"{RESERVED}/deep/"
"""Below it, at a route's root, lie the objects whose paths are too long for a key."""

_KEYS: Final = 8192
"""Keys that are remembered: every operation asks for one, and the same names are used again and again."""
_ROOM: Final = KEY_LIMIT - NAME_LIMIT - 1
"""A longest key prefix of a directory under which every name of 255 bytes still fits."""
_DIRECTORY_LIMIT: Final = 255
"""Also what several S3 servers that keep keys as files allow between two slashes."""
_ODD_CHARACTER: Final = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")
_ASCII_CODE: Final = "[01][0-9A-F]|7F|5C"
_HIGH_CODE: Final = "[89A-F][0-9A-F]"
_TOKEN: Final = re.compile(
    f"(?P<run>(?:%(?:{_HIGH_CODE}))+)|(?P<code>%(?:{_ASCII_CODE}))|%(?P<nested>25(?:25)*(?:{_ASCII_CODE}|{_HIGH_CODE}))"
    "|(?P<odd>[\x00-\x1f\x7f\\\\\ud800-\udfff])"
)
_SLASH_ESCAPE: Final = re.compile("%((?:25)*2F)")


@lru_cache(maxsize=_KEYS)
def to_key(name_path: str, prefix: str = "") -> str:
    """Key of a path of names.

    Parameters
    ----------
    name_path : str
        Names joined by ``/``, without leading or trailing ``/``; ``""`` is the root.
    prefix : str
        Raw key prefix of the route (ends in ``/`` unless empty), put in front and counted in the limit.

    Raises
    ------
    InvalidName
        A segment is empty, ``.`` or ``..``, or holds NUL.
    NameTooLong
        A segment is over 255 bytes, or one that escaping made longer has no room in any key.
    """
    if not name_path:
        return prefix
    for segment in name_path.split("/"):
        check_name(segment)
    key = prefix + escape(name_path)
    if len(key) > KEY_LIMIT // 4 and len(_key_bytes(key)) > KEY_LIMIT:
        parent, _, name = name_path.rpartition("/")
        name = escape(name)
        for place in places(parent, prefix):
            if len(_key_bytes(place + name)) <= KEY_LIMIT:
                return place + name
        raise NameTooLong(f"its escaped key is over {KEY_LIMIT} bytes, the limit of object stores", name_path)
    return key


def split(path: str) -> tuple[str, str]:
    """Parent directory and last name of a route path."""
    parent, _, name = path.rpartition("/")
    return parent, name


def places(directory: str, prefix: str = "") -> tuple[str, ...]:
    """Key prefixes under which the children of a directory lie; each ends in ``/`` (or is empty, for the root).

    There is one, the directory's own key, unless that is so long that some names have no room behind it. Those are in the
    last place, a fold; where a fold runs full in turn, deeper directories get another one. What fits into an earlier place
    is there, so that every key a store can hold is shown where it is.
    """
    if not directory:
        return (prefix,)
    plain = f"{prefix}{escape(directory)}/"
    if len(plain) <= _ROOM // 4 or len(_key_bytes(plain)) <= _ROOM:
        return (plain,)
    found, path = [prefix], ""
    for segment in escape(directory).split("/"):
        path = f"{path}/{segment}" if path else segment
        longer = [f"{place}{segment}/" for place in found]
        found = [place for place in longer if len(_key_bytes(place)) <= KEY_LIMIT]
        if len(_key_bytes(longer[-1])) > _ROOM:
            found.append(f"{prefix}{FOLDS}{hashlib.sha256(_key_bytes(path)).hexdigest()}/")
    return tuple(found)


def folded(name_path: str, prefix: str = "") -> dict[str, str]:
    """The folds that hold what lies below a path and the directories above it: key prefix to the directory's path."""
    found: dict[str, str] = {}
    if len(_key_bytes(prefix + escape(name_path))) < _ROOM:
        return found
    end = 0
    while end >= 0:
        end = name_path.find("/", end + 1)
        directory = name_path if end < 0 else name_path[:end]
        last = places(directory, prefix)[-1]
        if last.startswith(f"{prefix}{FOLDS}") and last.count("/") == f"{prefix}{FOLDS}".count("/") + 1:
            found[last] = directory
    return found


def to_name(key: str) -> str | None:
    """Path of names of a key (relative to the route), or None for a key that never becomes a name."""
    for segment in key.split("/"):
        if segment in ("", ".", ".."):
            return None
    name = unescape(key)
    if "\0" in name or (name != key and escape(name) != key) or _ODD_CHARACTER.search(key):
        return None
    if len(name) > NAME_LIMIT // 4 and any(len(_bytes(segment)) > NAME_LIMIT for segment in name.split("/")):
        return None
    return name


def escape(name: str) -> str:
    """Escaped form of one name, or of several joined by ``/``; checks nothing but that it is text from bytes."""
    if "%" not in name and not _ODD_CHARACTER.search(name):
        return name
    return _TOKEN.sub(_escape_token, _canonical(name))


def unescape(key: str) -> str:
    """Inverse of `escape`; of a key that `escape` never makes, some name that leads to another key."""
    if "%" not in key:
        return key
    return _TOKEN.sub(_unescape_token, key)


def check_name(segment: str) -> None:
    """Refuse what cannot be one name in a directory.

    Raises
    ------
    InvalidName
        Empty, ``.``, ``..``, or with ``/`` or NUL inside.
    NameTooLong
        Over 255 bytes.
    """
    if segment in ("", ".", ".."):
        raise InvalidName(f"{segment!r} is not a name; write the path without empty, '.' and '..' parts", segment)
    if "/" in segment or "\0" in segment:
        raise InvalidName("a name holds neither '/' nor NUL", segment)
    if len(segment) > NAME_LIMIT // 4 and len(_bytes(segment)) > NAME_LIMIT:
        raise NameTooLong(f"a name has at most {NAME_LIMIT} bytes", segment)


def check_segments(key: str, limit: int) -> None:
    """Refuse a key with a segment that its store cannot hold: escaping made a name longer.

    Raises
    ------
    NameTooLong
        A segment is over ``limit`` bytes.
    """
    if any(len(segment.encode("utf-8", "surrogateescape")) > limit for segment in key.split("/")):
        raise NameTooLong(f"a name, escaped for this store, is over its limit of {limit} bytes", key)


def shown_names(objects: Collection[str], directories: Collection[str]) -> dict[str, str]:
    """Names under which the objects of one directory are shown.

    A directory keeps its name; an object of the same name gets ``%file`` appended, and so does, once more, each literal
    ``…%file`` object or directory name that this would collide with. No two objects share a shown name.

    Parameters
    ----------
    objects, directories : collection of str
        Names (not keys) at one level.

    Returns
    -------
    dict of str to str
        Shown name to the object's own name. An object whose shown name would pass 255 bytes is left out.
    """
    taken = set(directories)
    if taken.isdisjoint(objects):
        return {name: name for name in objects}
    shown: dict[str, str] = {}
    for name in sorted(objects, key=lambda name: (len(name), name)):
        visible = name
        while visible in taken:
            visible += FILE_SUFFIX
        if len(_bytes(visible)) <= NAME_LIMIT:
            taken.add(visible)
            shown[visible] = name
    return shown


def beside(path: str, suffix: str) -> str:
    """Path of another file in the same directory, named after this one; what is too long of the name is cut off."""
    directory, slash, name = path.rpartition("/")
    while len(_bytes(name + suffix)) > NAME_LIMIT:
        name = name[:-1]
    return f"{directory}{slash}{name}{suffix}"


def escape_directory(path: str) -> str:
    """Name of the attribute object of a directory, under ``.fsdriver/meta/``.

    Parameters
    ----------
    path : str
        Names joined by ``/``, relative to the route; ``""`` is the root.

    Returns
    -------
    str
        One key segment: the escaped path with ``/`` as ``%2F`` (a literal ``%2F`` as ``%252F``), ``%2F`` for the root;
        ``sha256-`` and 64 hexadecimal digits where that would be over 255 bytes or begin so itself.
    """
    if not path:
        return "%2F"
    key = escape(path)
    flat = _SLASH_ESCAPE.sub(r"%25\1", key).replace("/", "%2F")
    if flat.startswith("sha256-") or len(flat.encode("utf-8")) > _DIRECTORY_LIMIT:
        return "sha256-" + hashlib.sha256(key.encode("utf-8")).hexdigest()
    return flat


def _key_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidName("it holds a lone surrogate, which no file name can", ascii(name)) from error


def _canonical(name: str) -> str:
    """The `os.fsdecode` form: surrogates stand only for bytes that are not UTF-8."""
    return _bytes(name).decode("utf-8", "surrogateescape")


def _split_run(run: str) -> list[tuple[bool, bytes]]:
    """Bytes of a run of high ``%XX``, each maximal piece with whether it is valid UTF-8."""
    text = bytes.fromhex(run.replace("%", "")).decode("utf-8", "surrogateescape")
    return [(not "\udc80" <= character <= "\udcff", character.encode("utf-8", "surrogateescape")) for character in text]


def _codes(data: bytes, prefix: str = "%") -> str:
    return "".join(f"{prefix}{byte:02X}" for byte in data)


def _escape_token(match: re.Match[str]) -> str:
    token = match.group()
    if match["run"]:
        # What is valid UTF-8 stays: `_unescape_token` recognises it as nothing we write.
        return "".join(_codes(data, "%" if valid else "%25") for valid, data in _split_run(token))
    if match["odd"]:
        return _codes(token.encode("utf-8", "surrogateescape"))
    return "%25" + token[1:]


def _unescape_token(match: re.Match[str]) -> str:
    token = match.group()
    if match["run"]:
        return "".join(
            _codes(data) if valid else data.decode("utf-8", "surrogateescape") for valid, data in _split_run(token)
        )
    if match["odd"]:
        return token
    if match["code"]:
        return chr(int(token[1:], 16))
    return "%" + token[3:]
