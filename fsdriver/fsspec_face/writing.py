"""File objects for writing: a local staging file that becomes the object, all or nothing, when it is closed.

Nothing is published by a file that is left through an exception, whose write failed, or that is dropped without being
closed. Context managers that only call ``close()`` when an exception passes through them (`fsspec.open`, pandas) are
recognised, because a half-written object that looks whole is worse than none.
"""

from __future__ import annotations

import io
import logging
import sys
from types import FrameType, TracebackType
from typing import Any, Final

from fsdriver import runtime
from fsdriver.errors import BackendError
from fsdriver.fsspec_face.base import Face
from fsdriver.fsspec_face.targets import Target
from fsdriver.writeback.staging import StagedFile

logger = logging.getLogger(__name__)

BUFFER: Final = 1 << 20
"""Bytes gathered before they go to the staging file."""
_FRAMES: Final = 6
"""How far up an ``__exit__`` that closes a file is looked for: wrappers for text and compression lie between."""


class StagingRaw(io.FileIO):
    """The staging file; remembers that a write failed."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


class Publication:
    """The one staging file of an open file, and what becomes of it.

    Parameters
    ----------
    target : Target
        Where it goes.
    staged : StagedFile
        Open, and so locked, until it is settled: a sweep of staging leaves it alone.
    base : str or None
        As in `Route.publish`: None replaces, ABSENT demands a new name, a version demands that very one.
    """

    def __init__(self, target: Target, staged: StagedFile, base: str | None) -> None:
        self.target = target
        self.staged = staged
        self.base = base
        self.settled = False

    def publish(self) -> None:
        """Make the staged bytes the content of the target; nothing happens if it was settled before."""
        if self.settled:
            return
        self.settled = True
        staging = self.target.route.services.staging
        staging.release(self.staged)
        try:
            runtime.run(self.target.route.publish(self.target.name, self.staged.path, base=self.base))
        finally:
            staging.remove(self.staged.path)

    def drop(self) -> None:
        """Forget the staged bytes."""
        if not self.settled:
            self.settled = True
            staging = self.target.route.services.staging
            staging.release(self.staged)
            staging.remove(self.staged.path)


class _Publishing:
    """Life of a file that is written: mixed into the buffered classes of `io`."""

    fs: Face
    path: str
    autocommit: bool
    _publication: Publication
    _opened_during: BaseException | None
    _abandoned: bool
    raw: Any
    closed: bool

    def begin(self, fs: Face, publication: Publication, autocommit: bool, handled: BaseException | None) -> None:
        """Called once, by `open_staged`."""
        self.fs = fs
        self.path = publication.target.path
        self.autocommit = autocommit
        self._publication = publication
        self._opened_during = handled
        self._abandoned = False

    @property
    def full_name(self) -> str:
        """The URL of the file."""
        return str(self.fs.unstrip_protocol(self.path))

    def close(self) -> None:
        """Publish what was written (or, in a transaction, keep it for `commit`).

        Raises
        ------
        BackendError
            An earlier write failed: nothing was published.
        OSError
            The store refused the object: nothing was published.
        """
        if self.closed:
            return
        if not self._abandoned and _left_by_exception(self._opened_during):
            logger.info("%s is not published: it was closed because of an exception", self.full_name)
            self._abandoned = True
        if self._abandoned:
            self.discard()
            return
        try:
            super().close()  # type: ignore[misc]
        except BaseException:  # an interrupt publishes no half of a file either
            self._publication.drop()
            raise
        if self.raw.failure is not None:
            self._publication.drop()
            raise BackendError(f"nothing was published: an earlier write failed ({self.raw.failure})", self.path)
        if self.autocommit:
            self.commit()

    def commit(self) -> None:
        """Publish a file that was closed inside a transaction."""
        self._publication.publish()

    def discard(self) -> None:
        """Close without publishing; what the path holds stays."""
        self._publication.drop()
        # Closing the raw file first makes the buffered close() skip its flush.
        self.raw.close()

    def abandon(self) -> None:
        """Make the coming `close` a `discard`: for wrappers that flush into this file while they close."""
        self._abandoned = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
        self.close()

    def __del__(self) -> None:
        publication = getattr(self, "_publication", None)
        if publication is not None and not publication.settled and not (self.closed and not self.autocommit):
            logger.warning("%s was never closed: its bytes are dropped", self.path)
            self.discard()

    def _dealloc_warn(self, source: object) -> None:
        """Called by the text and buffer classes of `io` when they close because they are being collected."""
        self._abandoned = True


class WriteFile(_Publishing, io.BufferedWriter):
    """A file opened with ``wb``, ``xb`` or ``ab``."""


class UpdateFile(_Publishing, io.BufferedRandom):
    """A file opened with ``r+b``, ``w+b``, ``x+b`` or ``a+b``."""


class TextFile(io.TextIOWrapper):
    """Text over a file that is written; an exception inside ``with`` publishes nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.buffer.abandon()  # type: ignore[attr-defined]
        self.close()


class CompressedFile(io.BufferedIOBase):
    """A compressor over a file that is written: closes both, and abandons the file when left by an exception."""

    mode = "wb"

    def __init__(self, outer: Any, inner: WriteFile | UpdateFile) -> None:
        self._outer = outer
        self._inner = inner

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written: int | None = self._outer.write(data)
        return len(data) if written is None else written

    def flush(self) -> None:
        if not self._outer.closed:
            self._outer.flush()

    def tell(self) -> int:
        position: int = self._outer.tell()
        return position

    def abandon(self) -> None:
        """Make the coming `close` publish nothing."""
        self._inner.abandon()

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._outer.close()
            self._inner.close()
        except BaseException:  # an interrupt publishes no half of a file either
            self._inner.discard()
            raise
        finally:
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self.abandon()
            self.close()

    def _dealloc_warn(self, source: object) -> None:
        self.abandon()


def open_staged(
    fs: Face,
    target: Target,
    staged: StagedFile,
    mode: str,
    base: str | None,
    autocommit: bool,
    handled: BaseException | None,
) -> WriteFile | UpdateFile:
    """A file object over a staging file, which already holds the bytes that ``mode`` begins with.

    ``handled`` is the exception the caller is handling while it opens: the same one, met again at close, abandons nothing.
    """
    appends = {"ab": "a", "a+b": "a+"}
    raw = StagingRaw(staged.path, appends.get(mode, "r+"))
    file: WriteFile | UpdateFile = UpdateFile(raw, BUFFER) if "+" in mode else WriteFile(raw, BUFFER)
    file.begin(fs, Publication(target, staged, base), autocommit, handled)
    return file


def _left_by_exception(opened_during: BaseException | None) -> bool:
    """Whether an ``__exit__`` closes the file because of an exception that was raised after it was opened."""
    error = sys.exc_info()[1]
    if error is None or error is opened_during:
        return False
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the only way to see who closes
    for _ in range(_FRAMES):
        if frame is None:
            return False
        if frame.f_code.co_name == "__exit__":
            return True
        frame = frame.f_back
    return False
