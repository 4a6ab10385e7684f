"""Keys as catalogs order them: by their bytes."""

from __future__ import annotations


def blob(key: str) -> bytes:
    """A key, which may hold surrogates, as bytes."""
    return key.encode("utf-8", "surrogateescape")


def text(key: bytes) -> str:
    """The opposite of `blob`."""
    return key.decode("utf-8", "surrogateescape")


def parent_of(key: bytes) -> bytes:
    """The directory key a key lies directly below: ``a/`` of ``a/b`` and of ``a/b/``."""
    return key[: key.removesuffix(b"/").rfind(b"/") + 1]


def end_of(prefix: bytes) -> bytes | None:
    """The first key after all that begin with ``prefix``; None: there is no such key."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None
