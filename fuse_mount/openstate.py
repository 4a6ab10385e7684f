"""What an open inode stands on: a reader or a staging file, and whether the kernel uses it directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsdriver.cache import Reader

if TYPE_CHECKING:
    from fsdriver.entry import Entry
    from fsdriver.routes.reading import AnyReader
    from fsdriver.writeback.staging import StagedFile


class OpenState:
    """See the module.

    Attributes
    ----------
    reader : AnyReader or None
        What was there when the inode was opened for reading.
    staged : StagedFile or None
        What is written; once set, reads go there too.
    backing_id : int or None
        Of the local file while the kernel uses it directly; None: the daemon answers READ and WRITE.
    handles, writers : int
        Open file descriptions, and those of them that may write.
    position : int
        Where the last READ that the daemon answered from the local file ended.
    sequential : bool
        The kernel was told that the local file is read in order.
    untouched : tuple or None
        Size and mtime of the staging file when it was made from existing bytes: until they move, the entry's times count.
    """

    __slots__ = ("backing_id", "handles", "position", "reader", "sequential", "staged", "untouched", "writers")

    def __init__(self, reader: AnyReader | None = None, staged: StagedFile | None = None) -> None:
        self.reader = reader
        self.staged = staged
        self.backing_id: int | None = None
        self.handles = 0
        self.writers = 0
        self.position = 0
        self.sequential = False
        self.untouched: tuple[int, int] | None = None

    def touched(self) -> bool:
        """The staging file no longer has the bytes and the time it began with."""
        staged = self.staged
        if staged is None or (status := staged.status()) is None:
            return False
        return self.untouched != (status.st_size, status.st_mtime_ns)

    def descriptor(self) -> int | None:
        """A complete local file with the present bytes, or None."""
        if self.staged is not None:
            return self.staged.fileno()
        return None if self.reader is None else self.reader.fileno()

    def reads(self, entry: Entry) -> bool:
        """It is of the bytes that the entry stands for, and they are in the store."""
        return isinstance(self.reader, Reader) and entry.staging is None and self.reader.key.version == entry.version

    def hold(self) -> None:
        """Open the local file of what was opened without (`OpenFiles.open_now`)."""
        if isinstance(self.reader, Reader):
            self.reader.attach()
