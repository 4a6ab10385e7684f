"""What a coded object looks like on its store: a header, blocks, and an index of the blocks.

Compressed objects are files of their format, which its own tools decompress: header and index lie where these skip them.

======  =========================================  =====================================================
        zstd, lz4, encrypted                       gzip
======  =========================================  =====================================================
header  a skippable frame (0x184D2A5D)             an empty member, the header in its extra field ``FS``
blocks  a frame each                               a member each
index   a skippable frame (0x184D2A5E)             empty members, the index in their extra fields ``FI``
======  =========================================  =====================================================

The index of zstd is the seek table of the zstd seekable format (contrib/seekable_format of facebook/zstd), in which the header
is a frame without content; lz4 has the same. That of gzip is the stored size of each member, 32 bits, little-endian.

The header, all numbers little-endian::

    0    8 bytes   magic
    8    u8        compression: 0 none, 1 zstd, 2 lz4, 3 gzip
    9    u8        1: encrypted
    12   u32       bytes of a block before it is coded; the last one may be shorter
    16   u64       bytes of the object before it is coded
    24   8 bytes   id of the key-encryption key         (encrypted objects, else zeros)
    32   60 bytes  data key, wrapped (`envelope`)       (encrypted objects, else zeros)
    96   u64       bytes of the object as it is stored
    104  u32       bytes of the index; 0 where all blocks but the last have one size
    108  u32       CRC-32 of the index
    112  u32       CRC-32 of what comes before
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from fsdriver.errors import Corrupt

MAGIC: Final = b"FSDCODE1"
NONE: Final = 0
GZIP: Final = 3
SMALLEST_BLOCK: Final = 128 << 10
MOST_BLOCKS: Final = 1 << 17
"""Larger objects have larger blocks: an index is read whole, and has up to 1 MiB."""
TAG: Final = 16
"""Bytes that encryption adds to a block."""

_FIXED: Final = struct.Struct("<8sBBxxIQ8s60sxxxxQII")
_CRC: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<II")
_HEADER_FRAME: Final = 0x184D2A5D
_INDEX_FRAME: Final = 0x184D2A5E
_SEEKABLE: Final = struct.Struct("<IBI")
_SEEKABLE_MAGIC: Final = 0x8F92EAB1
_MEMBER: Final = struct.Struct("<BBBBIBBH2sH")
_EMPTY: Final = b"\x03\x00" + bytes(8)
"""Deflated nothing, its CRC-32 and its size."""
_ENTRIES: Final = 16_000
"""Of the index in one extra field, which holds up to 65,535 bytes."""
_MEMBER_SIZE: Final = _MEMBER.size + len(_EMPTY)
_PAYLOAD: Final = _FIXED.size + _CRC.size


@dataclass(frozen=True, slots=True)
class Header:
    """See the module."""

    codec: int
    encrypted: bool
    block: int
    size: int
    key_id: bytes = bytes(8)
    wrapped: bytes = bytes(60)
    stored: int = 0
    index_size: int = 0
    index_crc: int = 0

    @property
    def count(self) -> int:
        """Blocks."""
        return -(-self.size // self.block)

    @property
    def fixed(self) -> bytes:
        """What is known before the first block is coded, without the wrapped key; encryption binds blocks to it."""
        return _FIXED.pack(MAGIC, self.codec, self.encrypted, self.block, self.size, self.key_id, bytes(60), 0, 0, 0)

    def length(self, number: int) -> int:
        """Bytes of a block before it is coded."""
        return min(self.block, self.size - number * self.block)

    def pack(self) -> bytes:
        """The header as it lies at the beginning of the object."""
        payload = _FIXED.pack(
            MAGIC, self.codec, self.encrypted, self.block, self.size, self.key_id, self.wrapped, self.stored,
            self.index_size, self.index_crc,
        )  # fmt: skip
        payload += _CRC.pack(zlib.crc32(payload))
        return _frame(self.codec == GZIP and not self.encrypted, payload)


def _frame(gzip: bool, payload: bytes) -> bytes:
    return _member(b"FS", payload) if gzip else _FRAME.pack(_HEADER_FRAME, len(payload)) + payload


def _member(field: bytes, payload: bytes) -> bytes:
    head = _MEMBER.pack(0x1F, 0x8B, 8, 4, 0, 0, 255, len(payload) + 4, field, len(payload))
    return head + payload + _EMPTY


_STARTS: Final = (_frame(True, MAGIC.ljust(_PAYLOAD, b"\0")), _frame(False, MAGIC.ljust(_PAYLOAD, b"\0")))
HEADER_SIZE: Final = max(map(len, _STARTS))
"""Bytes within which every header ends."""
SMALLEST_HEADER: Final = min(map(len, _STARTS))


def looks_coded(start: bytes | memoryview) -> bool:
    """Whether an object that begins so says that it is coded."""
    return _prefix(bytes(start[:HEADER_SIZE])) is not None


def _prefix(start: bytes) -> int | None:
    """Where the header's own bytes begin."""
    for known in _STARTS:
        at = known.index(MAGIC)
        if start.startswith(known[: at + len(MAGIC)]):
            return at
    return None


def parse(start: bytes | memoryview) -> Header | None:
    """The header of an object that begins so; None if it is an ordinary one.

    Raises
    ------
    Corrupt
        It has our magic, and is damaged or cut, or only looks like one of ours.
    """
    data = bytes(start[:HEADER_SIZE])
    at = _prefix(data)
    if at is None:
        return None
    payload = data[at : at + _PAYLOAD]
    if len(payload) < _PAYLOAD or _CRC.unpack(payload[-4:])[0] != zlib.crc32(payload[:-4]):
        raise Corrupt(
            "it begins as a compressed or encrypted object of fsdriver does, and its header is damaged; a backend without"
            " compression and keys reads it as it is"
        )
    _, codec, encrypted, block, size, key_id, wrapped, stored, index_size, index_crc = _FIXED.unpack(payload[:-4])
    header = Header(codec, bool(encrypted), block, size, key_id, wrapped, stored, index_size, index_crc)
    if (
        encrypted > 1
        or not block
        or not size
        or header.count > MOST_BLOCKS
        or header.pack() != data[: len(header.pack())]
    ):
        raise Corrupt("the header of this compressed or encrypted object makes no sense")
    return header


def block_size(size: int) -> int:
    """Bytes of a block of an object."""
    block = SMALLEST_BLOCK
    while -(-size // block) > MOST_BLOCKS:
        block *= 2
    return block


def pack_index(header: Header, sizes: list[int]) -> bytes:
    """The index of blocks of these stored sizes; empty where it is not needed."""
    if header.codec == NONE:
        return b""
    if header.codec == GZIP and not header.encrypted:
        parts = [sizes[at : at + _ENTRIES] for at in range(0, len(sizes), _ENTRIES)]
        return b"".join(_member(b"FI", struct.pack(f"<{len(part)}I", *part)) for part in parts)
    entries = [len(header.pack()), 0]
    for number, size in enumerate(sizes):
        entries += (size, header.length(number))
    table = struct.pack(f"<{len(entries)}I", *entries) + _SEEKABLE.pack(len(sizes) + 1, 0, _SEEKABLE_MAGIC)
    return _FRAME.pack(_INDEX_FRAME, len(table)) + table


def offsets(header: Header, index: bytes | memoryview) -> list[int]:
    """Where each block begins, and where the last one ends.

    Raises
    ------
    Corrupt
    """
    first, end = len(header.pack()), header.stored - header.index_size
    if header.codec == NONE:
        step = header.block + TAG * header.encrypted
        found = [first + step * number for number in range(header.count)]
        found.append(first + header.size + TAG * header.encrypted * header.count)
    else:
        data = bytes(index)
        if len(data) != header.index_size or zlib.crc32(data) != header.index_crc:
            raise Corrupt("the index of this compressed object is damaged")
        found = list(accumulate(_sizes(header, data), initial=first))
    if len(found) != header.count + 1 or found[-1] != end:
        raise Corrupt("the index of this compressed object does not fit its size")
    return found


def _sizes(header: Header, index: bytes) -> tuple[int, ...]:
    if header.codec == GZIP and not header.encrypted:
        step = _MEMBER_SIZE + 4 * _ENTRIES
        parts = [index[at : at + step][_MEMBER.size : -len(_EMPTY)] for at in range(0, len(index), step)]
        data = b"".join(parts)
        return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
    table = index[_FRAME.size + 8 : -_SEEKABLE.size]
    return struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])[::2]
