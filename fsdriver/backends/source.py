"""What a backend uploads: bytes in memory or a local file, read piece by piece."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Final, TypeAlias

from fsdriver.errors import Corrupt

Source: TypeAlias = bytes | memoryview | Path
"""What `Backend.put` sends: bytes in memory, or a local file that does not change while it is read."""

_DIGEST_STEP: Final = 1 << 20


def size_of(source: Source) -> int:
    """Bytes of a source."""
    if isinstance(source, Path):
        return source.stat().st_size
    return memoryview(source).nbytes


def piece(source: Source, start: int, size: int) -> bytes | memoryview:
    """``size`` bytes from ``start``; blocks on a file.

    Raises
    ------
    Corrupt
        The file is shorter than it was.
    """
    if not isinstance(source, Path):
        return memoryview(source).cast("B")[start : start + size]
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(size)
        view, filled = memoryview(buffer), 0
        while filled < size:
            count = os.preadv(descriptor, [view[filled:]], start + filled)
            if count == 0:
                raise Corrupt(
                    f"the file lost bytes while it was uploaded: {start + filled} of {start + size}", str(source)
                )
            filled += count
        return view
    finally:
        os.close(descriptor)


async def load(source: Source, start: int, size: int) -> bytes | memoryview:
    """`piece` without blocking the loop."""
    if isinstance(source, Path):
        return await asyncio.to_thread(piece, source, start, size)
    return piece(source, start, size)


def body(data: bytes | memoryview) -> bytes | bytearray:
    """What an SDK takes as a body, without a copy where ``data`` is the whole of its buffer."""
    whole = data.obj if isinstance(data, memoryview) else data
    if isinstance(whole, bytes | bytearray) and len(whole) == len(data):
        return whole
    return bytes(data)


def md5_of(source: Source) -> str:
    """Hexadecimal MD5 of a source, the ETag S3 gives to an object of one plain PUT; blocks."""
    digest = hashlib.md5(usedforsecurity=False)
    size = size_of(source)
    for start in range(0, size, _DIGEST_STEP):
        digest.update(piece(source, start, min(_DIGEST_STEP, size - start)))
    return digest.hexdigest()
