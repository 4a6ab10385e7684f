"""Checksums of staging files that wait for a store: what the local disk has changed meanwhile is not uploaded.

Most files are uploaded within a moment of being closed, from the same pages of memory: a checksum would find little there,
and cost each close(2) as much as journaling it. What waits longer, in an outage for hours, is read once when it is written
to the disk (`fsdriver.writeback.powerloss.LateSync`), and compared with that when it is sent.
"""

from __future__ import annotations

import os
import time
from typing import Final

import xxhash

from fsdriver.errors import Corrupt
from fsdriver.writeback.catalog import Catalog
from fsdriver.writeback.pending import Pending
from fsdriver.writeback.staging import Signature, signature

MOST: Final = 256 << 20
"""Bytes of a file that gets one: it is read twice more."""
AFTER: Final = 5.0
"""Seconds after a change at which its file may have one."""
_SETTLED: Final = int(1e9)
"""Nanoseconds since the last write after which another one is certain to move mtime."""
_STEP: Final = 4 << 20


class Sums:
    """See the module; safe from any thread.

    Parameters
    ----------
    catalog : Catalog
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def note(self, path: str) -> None:
        """Read a file that is on the disk, and keep its checksum; that there is none, of one that changes or is large."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            before = signature(descriptor)
            digest = None
            if before[0] <= MOST and time.time_ns() - before[1] > _SETTLED:
                digest = _digest(descriptor)
            if signature(descriptor) != before:
                digest = None
            self._catalog.change("INSERT OR REPLACE INTO sums VALUES (?,?,?,?)", (path, *before, digest))
        finally:
            os.close(descriptor)

    def prune(self) -> None:
        """Forget those of files from which nothing is owed."""
        self._catalog.change("DELETE FROM sums WHERE NOT EXISTS (SELECT 1 FROM pending WHERE staging=sums.staging)")

    def forget(self, path: str) -> None:
        """The file is gone, or was written to since."""
        self._catalog.change("DELETE FROM sums WHERE staging=?", (path,))

    def compare(self, row: Pending, descriptor: int, before: Signature, data: bytes | None = None) -> None:
        """Before the bytes of a row are sent.

        Parameters
        ----------
        descriptor : int
            Of its staging file.
        before : Signature
            Of the file now.
        data : bytes, optional
            All of it, where it has been read.

        Raises
        ------
        Corrupt
            They are not those that were written.
        """
        if time.time_ns() - row.seq < AFTER * 1e9:
            return
        found = self._catalog.rows("SELECT size, mtime, digest FROM sums WHERE staging=?", (row.staging,))
        if not found or found[0][:2] != before or found[0][2] is None:
            return
        digest = _digest(descriptor) if data is None else xxhash.xxh3_128_digest(data)
        if digest == found[0][2] or signature(descriptor) != before:
            return
        # If it was memory that changed, and not the disk, another attempt finds the right bytes.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        raise Corrupt(
            f"the local disk has changed the bytes that wait to be uploaded ({row.staging} does not have its checksum any "
            "more): write the file again; or copy what there is of it to another name, and remove it",
            row.path,
        )


def _digest(descriptor: int) -> bytes:
    found = xxhash.xxh3_128()
    offset = 0
    while piece := os.pread(descriptor, _STEP, offset):
        found.update(piece)
        offset += len(piece)
    return found.digest()
