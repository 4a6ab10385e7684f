"""When a reader is sequential, and how far ahead of it to fetch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
SMALLEST_REQUEST: Final = 1 * MIB
LARGEST_REQUEST: Final = 8 * MIB
"""The part size of common multipart uploads: a range then is one part, read once by the store."""
REQUESTS_AHEAD: Final = 4
"""At first; see `fsdriver.cache.pace`."""
LARGEST_WINDOW: Final = LARGEST_REQUEST * REQUESTS_AHEAD

_STREAMS: Final = 8
_GROWTH: Final = 4
_PROVEN: Final = 4 * MIB
"""Bytes after which a stream is likely to go on: columns and tensors are read in order too, but end sooner."""
_ESTABLISHED: Final = 1 * MIB
_DISORDER: Final = 2 * MIB


@dataclass(slots=True)
class Plan:
    """Bytes to have on disk or on their way: ``start`` to ``end``, in requests of ``request`` bytes."""

    start: int
    end: int
    request: int


@dataclass(slots=True)
class _Stream:
    position: int
    run: int


class ReadAhead:
    """Finds sequential streams among the reads of one reader.

    A read that continues another makes a stream; its window is as much as it has read, four times that from 4 MiB on, and
    from 1 MiB to 32 MiB in all.
    Random reads make none, so nothing is fetched that they did not ask for. Once a stream has read 1 MiB, reads up to
    2 MiB from its position belong to it: the kernel sends its own read-ahead slightly out of order. Thread-safe.

    Parameters
    ----------
    size : int
        Bytes of the file.
    window : int
        Largest window, bytes.
    """

    def __init__(self, size: int, window: int = LARGEST_WINDOW) -> None:
        self._size = size
        self._window = window
        self._streams: list[_Stream] = []
        self._lock = threading.Lock()

    def observe(self, start: int, end: int, width: int = REQUESTS_AHEAD) -> Plan | None:
        """Note a read of ``start`` to ``end``; the plan of its stream, or None for a random read.

        ``width`` is the number of requests at a time.
        """
        with self._lock:
            stream = self._match(start)
            if stream is None:
                self._streams.insert(0, _Stream(end, end - start))
                del self._streams[_STREAMS:]
                return None
            if stream is not self._streams[0]:
                self._streams.remove(stream)
                self._streams.insert(0, stream)
            stream.run += end - start
            stream.position = max(stream.position, end)
            growth = _GROWTH if stream.run >= _PROVEN else 1
            window = min(max(SMALLEST_REQUEST, growth * stream.run), self._window)
            request = min(max(SMALLEST_REQUEST, window // width), LARGEST_REQUEST)
            return Plan(stream.position, min(stream.position + window, self._size), request)

    def _match(self, start: int) -> _Stream | None:
        for stream in self._streams:
            distance = abs(start - stream.position)
            if distance == 0 or (distance <= _DISORDER and stream.run >= _ESTABLISHED):
                return stream
        return None
