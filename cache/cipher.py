"""Encryption of cache files: AES-256-GCM, one block for each grain of the object.

A file is a row of blocks, each of `GRAIN` bytes of the object (the last one may be shorter)::

    0    12 bytes  nonce, from the system's random numbers
    12             the bytes, encrypted
    …    16 bytes  tag (NIST SP 800-38D)

The key of a file is HMAC-SHA256 of the configured key over the object's identity (store, key, version, size), so the bound for
random nonces, 2^32 blocks under one key, counts for one version of one object: 128 TiB of it. The additional data of a block are
that identity and the number of the block: no block can stand in for another one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Final

from fsdriver.errors import ConfigError, Corrupt

from .blocks import GRAIN

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE: Final = 12
TAG: Final = 16
UNIT: Final = NONCE + GRAIN + TAG
"""Bytes that a whole block takes."""

_ID: Final = b"fsdriver cache 1: id of the key"
_FILE: Final = b"fsdriver cache 1: key of a file\0"


class Cipher:
    """The configured key of a cache.

    Parameters
    ----------
    key : bytes
        32 bytes.

    Attributes
    ----------
    codec : str
        The algorithm and which key it is, as the index notes it; tells nothing of the key.

    Raises
    ------
    ConfigError
        The package ``cryptography`` is missing.
    """

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                "encryption needs the package cryptography: pip install 'fsdriver[crypto]'", "cache.encryption_key"
            ) from error
        self._key = key
        self._make = AESGCM
        self.codec = f"aes-256-gcm:{hmac.digest(key, _ID, 'sha256').hex()[:16]}"

    def of(self, *identity: str) -> FileCipher:
        """For the file of one version of an object."""
        parts = [part.encode("utf-8", "surrogateescape") for part in identity]
        whole = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
        return FileCipher(self._make(hmac.digest(self._key, _FILE + whole, "sha256")), whole)


class FileCipher:
    """Encrypts and decrypts the blocks of one file. Thread-safe.

    Parameters
    ----------
    cipher : AESGCM
    identity : bytes
        Of the object; part of what each block proves.
    """

    __slots__ = ("_cipher", "_identity")

    def __init__(self, cipher: AESGCM, identity: bytes) -> None:
        self._cipher = cipher
        self._identity = identity

    def encrypt(self, start: int, data: memoryview) -> memoryview:
        """Whole blocks from ``start`` on, a multiple of `GRAIN`; the last one may be short."""
        parts: list[bytes] = []
        for at in range(0, len(data), GRAIN):
            nonce = os.urandom(NONCE)
            parts += (nonce, self._cipher.encrypt(nonce, data[at : at + GRAIN], self._additional(start + at)))
        return memoryview(b"".join(parts))

    def decrypt(self, start: int, stored: memoryview) -> memoryview:
        """The opposite of `encrypt`.

        Raises
        ------
        Corrupt
            A block is not what was encrypted there with this key.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra

        parts = []
        try:
            for number, at in enumerate(range(0, len(stored), UNIT)):
                block = stored[at : at + UNIT]
                parts.append(
                    self._cipher.decrypt(block[:NONCE], block[NONCE:], self._additional(start + number * GRAIN))
                )
        except (InvalidTag, ValueError) as error:  # ValueError: shorter than a nonce and a tag
            raise Corrupt("an encrypted block of the cache has been changed, or was cut") from error
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def _additional(self, start: int) -> bytes:
        return self._identity + (start // GRAIN).to_bytes(8, "big")


def stored_size(size: int) -> int:
    """Bytes of the encrypted blocks of ``size`` bytes."""
    return size + (NONCE + TAG) * -(-size // GRAIN)
