"""A folder of temporary files for each process, removed by whoever next notices that its owner has died."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

from . import locks
from .files import LocalFile

_log = logging.getLogger("fsdriver.cache")
_LOCK_NAME = ".lock"


class Scratch:
    """Temporary files of this process below ``root``; a forked child gets a folder of its own.

    The owner holds LOCK_EX on a file in its folder as long as it lives.

    Parameters
    ----------
    root : Path
        On the same file system as the sealed files.
    guard : Path
        The mutex of the cache directory.
    """

    def __init__(self, root: Path, guard: Path) -> None:
        self._root = root
        self._guard = guard
        self._numbers = count()
        self._folder: Path | None = None
        self._lock: LocalFile | None = None
        self._pid = os.getpid()
        self._making = threading.Lock()

    def sweep(self) -> None:
        """Remove the folders of dead processes."""
        with locks.mutex(self._guard):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in self._root.iterdir():
                if self._abandoned(folder):
                    _log.info("removing temporary files of a dead process: %s", folder)
                    shutil.rmtree(folder, ignore_errors=True)

    def create(self, make: Callable[[int], LocalFile] = LocalFile) -> tuple[LocalFile, str]:
        """An empty file; ``make`` gives the open file of a descriptor."""
        while True:
            # Text: joining Paths takes as long as making the file.
            path = f"{self._own()}/{next(self._numbers)}"
            try:
                return make(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)), path
            except FileNotFoundError:
                self._folder = None

    def close(self) -> None:
        """Remove this process's folder."""
        folder, self._folder = self._folder, None
        if folder is not None and self._pid == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)
        self._lock = None

    def after_fork(self) -> None:
        """In a forked child: the folder is the parent's; its lock file stays open there and here, harmlessly."""
        self._folder = None
        self._pid = os.getpid()
        self._making = threading.Lock()

    def _own(self) -> Path:
        folder = self._folder
        return self._make() if folder is None else folder

    def _make(self) -> Path:
        with self._making:
            if self._folder is not None:
                return self._folder
            folder = self._root / f"{os.getpid()}-{secrets.token_hex(6)}"
            with locks.mutex(self._guard):
                folder.mkdir(mode=0o700, parents=True)
                self._lock = LocalFile(os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                locks.exclude(self._lock.descriptor)
            self._folder = folder
            return folder

    @staticmethod
    def _abandoned(folder: Path) -> bool:
        try:
            lock = LocalFile(os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return True
        return locks.exclude(lock.descriptor)
