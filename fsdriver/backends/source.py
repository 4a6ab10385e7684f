"""What a backend uploads: bytes in memory or a local file, read piece by piece."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from fsdriver.errors import Corrupt, Unsettled


@dataclass(frozen=True, slots=True)
class Watched:
    """A local file that may be written to while it is sent.

    Attributes
    ----------
    path : Path
    moved : callable
        Whether it was written to since its upload began; from any thread.
    """

    path: Path
    moved: Callable[[], bool]


Source: TypeAlias = bytes | memoryview | Path | Watched
"""What `Backend.put` sends: bytes in memory, a local file that does not change while it is read, or one that may."""

BEING_WRITTEN: Final = "it is being written to; it is sent when it holds still, at the latest after its last close"
_DIGEST_STEP: Final = 1 << 20


def path_of(source: Source) -> Path | None:
    """The local file of a source that is one."""
    return source.path if isinstance(source, Watched) else source if isinstance(source, Path) else None


def check_settled(source: Source) -> None:
    """Call before what was read of a source is shown to others.

    Raises
    ------
    Unsettled
        The file was written to: what was read is of no one moment.
    """
    if isinstance(source, Watched) and source.moved():
        raise Unsettled(BEING_WRITTEN)


def size_of(source: Source) -> int:
    """Bytes of a source."""
    if isinstance(source, bytes | memoryview):
        return memoryview(source).nbytes
    return os.stat(source.path if isinstance(source, Watched) else source).st_size


def piece(source: Source, start: int, size: int) -> bytes | memoryview:
    """``size`` bytes from ``start``, of a file as it was when its upload began; blocks on a file.

    Raises
    ------
    Corrupt
        The file is shorter than it was.
    Unsettled
        It was written to.
    """
    if isinstance(source, bytes | memoryview):
        return memoryview(source).cast("B")[start : start + size]
    path = source.path if isinstance(source, Watched) else source
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(size)
        view, filled = memoryview(buffer), 0
        while filled < size:
            count = os.preadv(descriptor, [view[filled:]], start + filled)
            if count == 0:
                check_settled(source)
                raise Corrupt(
                    f"the file lost bytes while it was uploaded: {start + filled} of {start + size}", str(path)
                )
            filled += count
        check_settled(source)
        return view
    finally:
        os.close(descriptor)


async def load(source: Source, start: int, size: int) -> bytes | memoryview:
    """`piece` without blocking the loop."""
    if path_of(source) is not None:
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
