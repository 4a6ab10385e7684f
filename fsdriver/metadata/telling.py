"""Telling the other processes of this host, through epochs, that remembered directories are out of date."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

from fsdriver.cache import Epochs
from fsdriver.metadata.directory import Directory


class Telling:
    """See the module; used with the lock of what is remembered held.

    Parameters
    ----------
    epochs : Epochs
    """

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self._untold: dict[int, Directory] | None = None

    def changed(self, directory: Directory) -> None:
        """Whoever else remembers a directory has to ask again; this process knows what it changed."""
        if self._untold is not None:
            self._untold[id(directory)] = directory
            return
        current = directory.epoch == self._epochs.value_at(directory.slot)
        epoch = self._epochs.bump_at(directory.slot)
        if current:
            directory.epoch = epoch

    @contextlib.contextmanager
    def later(self, failed: Callable[[Collection[Directory]], None]) -> Iterator[None]:
        """Tell when the block has ended; nests. If it fails, ``failed`` is called with those that it changed before."""
        if self._untold is not None:
            yield
            return
        untold = self._untold = {}
        try:
            yield
        except BaseException:  # a cancellation, or an interrupt, changed nothing either
            failed(untold.values())
            raise
        finally:
            self._untold = None
            for directory in untold.values():
                self.changed(directory)
