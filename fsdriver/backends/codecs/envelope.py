"""Envelope encryption: each object has a data key of its own, which a key of the configuration wraps.

Data keys are 32 random bytes, used for one object written once. Blocks are encrypted with AES-256-GCM, the nonce being their
number: a data key never meets one twice. The additional data are the fixed part of the header (format, sizes, id of the key), so
that a block fits its own place in its own object only, and none can be left out at the end. The data key is wrapped with
AES-256-GCM as well, under a random nonce, over the same additional data.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fsdriver.errors import AccessDenied, ConfigError, Corrupt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE: Final = 12
_ID: Final = b"fsdriver objects 1: id of the key"
_SALT: Final = 8
_PRINT: Final = b"fsdriver objects 1: fingerprint\0"


class Keys:
    """Key-encryption keys: one to write with, if any, and all that objects are read with.

    Parameters
    ----------
    writing : bytes or None
        32 bytes.
    reading : sequence of bytes
        Others, e.g. earlier ones.

    Raises
    ------
    ConfigError
        The package ``cryptography`` is missing.
    """

    def __init__(self, writing: bytes | None, reading: Sequence[bytes] = ()) -> None:
        self.writes = writing is not None
        self._writing = writing
        self._known = {_id(key): key for key in (*reading, *([writing] if writing else []))}
        if self._known:
            _aes(bytes(32))

    def begin(self) -> tuple[bytes, bytes]:
        """A new data key, and the id of the key that is to wrap it."""
        assert self._writing is not None
        return os.urandom(32), _id(self._writing)

    def wrap(self, data_key: bytes, fixed: bytes) -> bytes:
        """60 bytes: nonce, encrypted key, tag."""
        assert self._writing is not None
        nonce = os.urandom(_NONCE)
        return nonce + _aes(self._writing).encrypt(nonce, data_key, fixed)

    def unwrap(self, key_id: bytes, wrapped: bytes, fixed: bytes) -> bytes:
        """The data key.

        Raises
        ------
        AccessDenied
            It was wrapped with a key that is not configured.
        Corrupt
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra

        if key_id not in self._known:
            known = ", ".join(one.hex() for one in self._known) or "none"
            raise AccessDenied(
                f"it is encrypted with a key that is not configured (id {key_id.hex()}; there is {known}): add that key to"
                " decryption_keys of this backend"
            )
        try:
            return _aes(self._known[key_id]).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], fixed)
        except InvalidTag as error:
            raise Corrupt("the wrapped key of this encrypted object is damaged") from error

    def fingerprint(self, md5: str) -> str:
        """By which bytes are known again: their MD5, or what tells nobody without the key even that two objects are equal."""
        if self._writing is None:
            return md5
        salt = os.urandom(_SALT).hex()
        return salt + _print_of(self._writing, salt, md5)

    def matches(self, fingerprint: str, md5: str) -> bool:
        """Whether a fingerprint, made with any of the keys, is of bytes with this MD5."""
        salt, rest = fingerprint[: 2 * _SALT], fingerprint[2 * _SALT :]
        return fingerprint == md5 or any(rest == _print_of(key, salt, md5) for key in self._known.values())


class Blocks:
    """Encrypts and decrypts the blocks of one object. Thread-safe."""

    def __init__(self, data_key: bytes, fixed: bytes) -> None:
        self._aes = _aes(data_key)
        self._fixed = fixed

    def encrypt(self, number: int, data: bytes | memoryview) -> bytes:
        """One block; each number once."""
        return self._aes.encrypt(number.to_bytes(_NONCE, "big"), data, self._fixed)

    def decrypt(self, number: int, data: bytes | memoryview) -> bytes:
        """The opposite. Raises Corrupt."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra

        try:
            return self._aes.decrypt(number.to_bytes(_NONCE, "big"), data, self._fixed)
        except InvalidTag as error:
            raise Corrupt("an encrypted block is damaged, or not of this object") from error


def _aes(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "encryption needs the package cryptography: pip install 'fsdriver[crypto]'", "encryption_key"
        ) from error
    return AESGCM(key)


def _id(key: bytes) -> bytes:
    return hmac.digest(key, _ID, "sha256")[:8]


def _print_of(key: bytes, salt: str, md5: str) -> str:
    return hmac.digest(key, _PRINT + f"{salt}{md5}".encode(), "sha256").hex()[:32]
