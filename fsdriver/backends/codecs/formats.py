"""The compression formats: each block of an object is a frame or member of its own, which any tool of the format reads.

zstd frames (RFC 8878), lz4 frames (LZ4 Frame Format Description, 1.6.x) and gzip members (RFC 1952) may all be put one after the
other. Each carries a checksum of its content.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

from fsdriver.errors import ConfigError, Corrupt


class Codec(ABC):
    """One format, at one level."""

    name: str
    number: int
    """In the header of an object."""

    @abstractmethod
    def compress(self, data: bytes | memoryview) -> bytes:
        """One block. Equal blocks give equal bytes, as long as the library is the same."""

    @abstractmethod
    def decompress(self, data: bytes | memoryview, size: int) -> bytes:
        """A block of ``size`` bytes; never more memory than that. Raises Corrupt."""


class Zstd(Codec):
    """Needs the package ``zstandard``."""

    name, number = "zstd", 1

    def __init__(self, level: int | None = None) -> None:
        try:
            import zstandard  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise _missing("zstandard", "zstd") from error
        self._module = zstandard
        self._level = 3 if level is None else level

    def compress(self, data: bytes | memoryview) -> bytes:
        compressor = self._module.ZstdCompressor(level=self._level, write_checksum=True, write_content_size=True)
        return compressor.compress(data)

    def decompress(self, data: bytes | memoryview, size: int) -> bytes:
        try:
            # The library would make room for whatever the frame claims.
            if self._module.frame_content_size(data) != size:
                raise _damaged()
            return _sized(self._module.ZstdDecompressor().decompress(data, allow_extra_data=False), size)
        except self._module.ZstdError as error:
            raise _damaged() from error


class Lz4(Codec):
    """Needs the package ``lz4``."""

    name, number = "lz4", 2

    def __init__(self, level: int | None = None) -> None:
        try:
            import lz4.frame  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise _missing("lz4", "lz4") from error
        self._frame: Any = lz4.frame
        self._level = 0 if level is None else level

    def compress(self, data: bytes | memoryview) -> bytes:
        frame: bytes = self._frame.compress(data, self._level, content_checksum=True, store_size=True)
        return frame

    def decompress(self, data: bytes | memoryview, size: int) -> bytes:
        decompressor = self._frame.LZ4FrameDecompressor()
        try:
            found = decompressor.decompress(bytes(data), max_length=size + 1)
        except (RuntimeError, EOFError, ValueError) as error:
            raise _damaged() from error
        if not decompressor.eof or decompressor.unused_data:
            raise _damaged()
        return _sized(found, size)


class Gzip(Codec):
    """Of the standard library."""

    name, number = "gzip", 3

    def __init__(self, level: int | None = None) -> None:
        self._level = 6 if level is None else level

    def compress(self, data: bytes | memoryview) -> bytes:
        compressor = zlib.compressobj(self._level, zlib.DEFLATED, 31)
        return compressor.compress(data) + compressor.flush()

    def decompress(self, data: bytes | memoryview, size: int) -> bytes:
        decompressor = zlib.decompressobj(31)
        try:
            found = decompressor.decompress(data, size + 1)
        except zlib.error as error:
            raise _damaged() from error
        if not decompressor.eof or decompressor.unused_data:
            raise _damaged()
        return _sized(found, size)


CODECS: Final[dict[str, type[Zstd | Lz4 | Gzip]]] = {"zstd": Zstd, "lz4": Lz4, "gzip": Gzip}


@dataclass(slots=True)
class Decoders:
    """The formats that objects are read in, made when they are first met: not every package needs to be there."""

    _made: dict[int, Codec]

    def __init__(self) -> None:
        self._made = {}

    def get(self, number: int) -> Codec:
        """By its number. Raises ConfigError if its package is missing, Corrupt if there is none of that number."""
        if number not in self._made:
            for kind in CODECS.values():
                if kind.number == number:
                    self._made[number] = kind()
                    break
            else:
                raise Corrupt(f"it is compressed in a format of number {number}, which this program does not know")
        return self._made[number]


def _sized(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise _damaged()
    return data


def _damaged() -> Corrupt:
    return Corrupt("a compressed block is damaged")


def _missing(package: str, name: str) -> ConfigError:
    return ConfigError(f"{name} needs the package {package}: pip install 'fsdriver[codecs]'", "compression")
