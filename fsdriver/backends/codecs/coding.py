"""Coding the contents of whole objects, block by block: from a source into memory or a file without a name, and back."""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from fsdriver.backends.codecs.container import (
    HEADER_SIZE,
    NONE,
    TAG,
    Header,
    block_size,
    looks_coded,
    offsets,
    pack_index,
)
from fsdriver.backends.codecs.envelope import Blocks, Keys
from fsdriver.backends.codecs.formats import Codec, Decoders
from fsdriver.backends.source import Source, Watched, check_settled, path_of, piece
from fsdriver.errors import Corrupt

IN_MEMORY: Final = 4 << 20
"""Bytes of an object that is coded in memory; larger ones go through a file."""
WORTH: Final = 0.95
"""Compression that leaves more of the bytes is not used."""
_SAMPLES: Final = 8
_SMALL: Final = 200
"""Bytes that header and index take, about."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A coded object, ready to be sent.

    Attributes
    ----------
    source : Source
        Its bytes, as long as ``file`` lives.
    header : Header
    md5 : str
        Of the bytes before they were coded.
    """

    source: Source
    header: Header
    md5: str
    file: IO[bytes]


def encode(source: Source, size: int, codec: Codec | None, keys: Keys) -> Encoded | None:
    """Code a source; blocks. None: it is best stored as it is.

    Memory is bounded; a large object takes as much space, beside the source or among temporary files, as it will on the store.

    Raises
    ------
    Unsettled
        The source is being written to.
    """
    block = block_size(size)
    if codec is not None and not _is_worth_it(source, size, block, codec):
        codec = None
    if codec is None and not keys.writes and not looks_coded(piece(source, 0, min(size, HEADER_SIZE))):
        return None
    header = Header(NONE if codec is None else codec.number, keys.writes, block, size)
    blocks = None
    if keys.writes:
        data_key, key_id = keys.begin()
        header = replace(header, key_id=key_id)
        header = replace(header, wrapped=keys.wrap(data_key, header.fixed))
        blocks = Blocks(data_key, header.fixed)
    file = _open(source, size)
    try:
        header, md5 = _write(file, source, header, codec, blocks)
        check_settled(source)
    except BaseException:  # an interrupt leaves no file either
        file.close()
        raise
    return Encoded(_as_source(file, source), header, md5, file)


def _write(
    file: IO[bytes], source: Source, header: Header, codec: Codec | None, blocks: Blocks | None
) -> tuple[Header, str]:
    """The header as it is then, and the MD5 of what was coded."""
    file.write(header.pack())
    sizes: list[int] = []
    md5 = hashlib.md5(usedforsecurity=False)
    for number in range(header.count):
        data: bytes | memoryview = piece(source, number * header.block, header.length(number))
        md5.update(data)
        if codec is not None:
            data = codec.compress(data)
        if blocks is not None:
            data = blocks.encrypt(number, data)
        file.write(data)
        sizes.append(len(data))
    index = pack_index(header, sizes)
    file.write(index)
    header = replace(header, stored=file.tell(), index_size=len(index), index_crc=zlib.crc32(index))
    file.seek(0)
    file.write(header.pack())
    file.flush()
    return header, md5.hexdigest()


def _is_worth_it(source: Source, size: int, block: int, codec: Codec) -> bool:
    """Compress some blocks, spread over the object."""
    count = -(-size // block)
    chosen = sorted({number * (count - 1) // max(1, _SAMPLES - 1) for number in range(_SAMPLES)})
    before = after = 0
    for number in chosen:
        data = piece(source, number * block, min(block, size - number * block))
        before += len(data)
        after += len(codec.compress(data))
    return after / before * size + _SMALL < WORTH * size


def _open(source: Source, size: int) -> IO[bytes]:
    if size <= IN_MEMORY:
        return io.BytesIO()
    path = path_of(source)
    folder = None if path is None else path.parent
    # Without a name: a process that dies leaves nothing. Elsewhere than on Linux it needs one to be opened again.
    made: Any = tempfile.TemporaryFile(dir=folder) if sys.platform == "linux" else tempfile.NamedTemporaryFile()  # noqa: SIM115
    return made  # type: ignore[no-any-return]


def _as_source(file: IO[bytes], source: Source) -> Source:
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    path = Path(f"/proc/self/fd/{file.fileno()}") if sys.platform == "linux" else Path(file.name)
    return Watched(path, source.moved) if isinstance(source, Watched) else path


class Layout:
    """Where the blocks of one coded object are, and how they are decoded.

    Parameters
    ----------
    header : Header
    index : bytes
    keys : Keys
    decoders : Decoders

    Raises
    ------
    Corrupt, AccessDenied, ConfigError
        It is damaged; its key, or the package of its format, is not there.
    """

    def __init__(self, header: Header, index: bytes | memoryview, keys: Keys, decoders: Decoders) -> None:
        self.header = header
        self.offsets: Sequence[int] = offsets(header, index)
        self._codec = None if header.codec == NONE else decoders.get(header.codec)
        self._blocks = None
        if header.encrypted:
            self._blocks = Blocks(keys.unwrap(header.key_id, header.wrapped, header.fixed), header.fixed)

    def stored(self, start: int, end: int) -> tuple[int, int]:
        """Where the blocks with a range of the object's bytes are stored."""
        block = self.header.block
        return self.offsets[start // block], self.offsets[-(-end // block)]

    def decode(self, start: int, end: int, stored: memoryview) -> memoryview:
        """A range of the object from what `stored` says. Raises Corrupt."""
        first, last = start // self.header.block, -(-end // self.header.block)
        base = self.offsets[first]
        if len(stored) != self.offsets[last] - base:
            raise Corrupt("the store has fewer bytes of this object than its header says")
        parts = []
        for number in range(first, last):
            data = stored[self.offsets[number] - base : self.offsets[number + 1] - base]
            parts.append(self._block(number, data))
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        begin = first * self.header.block
        return memoryview(whole)[start - begin : end - begin]

    def _block(self, number: int, data: bytes | memoryview) -> bytes | memoryview:
        length = self.header.length(number)
        if self._blocks is not None:
            if len(data) < TAG:
                raise Corrupt("an encrypted block was cut")
            data = self._blocks.decrypt(number, data)
        if self._codec is not None:
            data = self._codec.decompress(data, length)
        if len(data) != length:
            raise Corrupt("a block has not the size that the header of its object says")
        return data
