"""Encrypted local files, read and written as the bytes of their object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from .blocks import GRAIN
from .cipher import UNIT, FileCipher, stored_size
from .files import LocalFile
from .sums import Checksum

_STEP: Final = 128 * GRAIN


class EncryptedFile(LocalFile):
    """A file of encrypted blocks: who reads decrypts the blocks that he touches. See `LocalFile`.

    Parameters
    ----------
    descriptor : int
    cipher : FileCipher
    """

    __slots__ = ("_cipher",)
    plain = False
    unit = UNIT

    def __init__(self, descriptor: int, cipher: FileCipher) -> None:
        super().__init__(descriptor)
        self._cipher = cipher

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes; less only at the end of the file. Raises Corrupt."""
        first = offset // GRAIN
        begin = first * GRAIN
        stored = memoryview(self.pread(first * UNIT, (-(-(offset + size) // GRAIN) - first) * UNIT))
        if not stored or size <= 0:
            return b""
        return bytes(self._cipher.decrypt(begin, stored)[offset - begin : offset - begin + size])

    def write(self, offset: int, data: memoryview) -> None:
        """All of ``data``: whole blocks, the last one up to the end of the file."""
        self.pwrite(offset // GRAIN * UNIT, self._cipher.encrypt(offset, data))

    def encode(self, offset: int, data: memoryview) -> memoryview:
        return self._cipher.encrypt(offset, data)

    def decode(self, offset: int, stored: memoryview) -> memoryview:
        return self._cipher.decrypt(offset, stored)

    def extent(self, offset: int, size: int) -> tuple[int, int]:
        return offset // GRAIN * UNIT, stored_size(size)


def copy_in(source: LocalFile, target: EncryptedFile, size: int) -> bytes:
    """Encrypt a whole file; returns the `Checksum` of what was written."""
    sums = Checksum(unit=UNIT)
    for start in range(0, size, _STEP):
        stored = target.encode(start, memoryview(source.read(start, min(_STEP, size - start))))
        target.pwrite(target.extent(start, 0)[0], stored)
        sums.add(stored)
    return sums.digest()


def copy_out(source: LocalFile, target: Path, size: int) -> None:
    """Decrypt a whole file into a new one; nothing is left of that after an error. Raises Corrupt, OSError."""
    copy = LocalFile(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        for start in range(0, size, _STEP):
            copy.write(start, memoryview(source.read(start, min(_STEP, size - start))))
    except BaseException:  # an interrupt leaves nothing either
        target.unlink(missing_ok=True)
        raise
