"""File objects for reading: a plain local file where the cache has all of it, else one that fetches what is read."""

from __future__ import annotations

import io
import os
from typing import Any, Final

from fsdriver import runtime
from fsdriver.entry import Entry
from fsdriver.fsspec_face.base import Face
from fsdriver.routes.reading import AnyReader
from fsdriver.writeback.staging import StagedReader

LOCAL_BUFFER: Final = 4096
"""Bytes buffered in front of a local file, as open() does on most file systems: a random read of 4 KiB then reads no more."""
FETCHED_BUFFER: Final = 128 << 10
"""Bytes buffered in front of a file that is still being fetched: one block of the cache."""


class LocalRaw(io.FileIO):
    """A complete local file, through a descriptor of its own: position and lock are nobody else's."""


class MemoryRaw(io.BytesIO):
    """A small file that is in memory; who needs a descriptor gets one of a copy."""

    mode = "rb"

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = len(data)
        self._file: LocalRaw | None = None

    def writable(self) -> bool:
        return False

    def readall(self) -> bytes:
        """What is left; all of it is not copied."""
        return self.read()

    def fileno(self) -> int:
        if self._file is None:
            self._file = LocalRaw(os.memfd_create("fsdriver"), "rb")
            os.pwrite(self._file.fileno(), self.getbuffer(), 0)
        return self._file.fileno()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


class FetchedRaw(io.RawIOBase):
    """A file of which the cache has parts or nothing: local bytes are read in the calling thread, others fetched."""

    mode = "rb"

    def __init__(self, reader: AnyReader) -> None:
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        raise io.UnsupportedOperation(
            "fileno: no local file has just these bytes; they are being fetched, or the cache is encrypted"
        )

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check_open()
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._reader.size}.get(whence)
        if origin is None:
            raise ValueError(f"whence {whence} is none of SEEK_SET, SEEK_CUR and SEEK_END")
        if origin + offset < 0:
            raise ValueError(f"position {origin + offset} lies before the beginning of the file")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer).cast("B") as view:
            data = self._take(len(view))
            view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return bytes(self._take(max(0, self._reader.size - self._position)))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._reader.close()

    def _take(self, count: int) -> bytes | memoryview:
        self._check_open()
        count = min(count, max(0, self._reader.size - self._position))
        if count == 0:
            return b""
        data: bytes | memoryview | None = self._reader.read_now(self._position, count)
        if data is None:
            data = runtime.run(self._reader.read(self._position, count))
        self._position += len(data)
        return data

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class ReadFile(io.BufferedReader):
    """A file opened for reading (``rb``).

    Attributes
    ----------
    fs : Face
    path : str
        As in `TierFileSystem.info`.
    size : int
        Bytes of the version that was opened; a later overwrite does not change what this object reads.
    """

    def __init__(self, fs: Face, path: str, entry: Entry, reader: AnyReader | MemoryRaw) -> None:
        self.fs = fs
        self.path = path
        self._entry = entry
        self.size = reader.size
        if isinstance(reader, MemoryRaw):
            super().__init__(reader)
            return
        descriptor = _own_descriptor(reader)
        if descriptor is None:
            super().__init__(FetchedRaw(reader), FETCHED_BUFFER)
        else:
            reader.close()
            super().__init__(LocalRaw(descriptor, "rb"), LOCAL_BUFFER)

    @property
    def full_name(self) -> str:
        """The URL of the file."""
        return str(self.fs.unstrip_protocol(self.path))

    def info(self) -> dict[str, Any]:
        """Attributes of the file as it was opened."""
        return self.fs.describe(self.path, self._entry)

    def __del__(self) -> None:
        # Closing a descriptor that was only read is nothing to warn about: pyarrow and others drop their readers.
        if hasattr(self, "_entry"):
            self.close()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _reopen, (self.fs, self.path, self.tell())


class DecompressedFile(io.BufferedReader):
    """A decompressor over a file: closes both."""

    def __init__(self, outer: Any, inner: ReadFile) -> None:
        super().__init__(outer, FETCHED_BUFFER)
        self._inner = inner

    def close(self) -> None:
        """Close the decompressor and the file."""
        super().close()
        self._inner.close()


def _own_descriptor(reader: AnyReader) -> int | None:
    # What is pending may be written to again, which only its reader notices.
    return None if isinstance(reader, StagedReader) else reader.duplicate()


def _reopen(fs: Face, path: str, position: int) -> Any:
    file = fs.open(path, "rb")
    file.seek(position)
    return file
