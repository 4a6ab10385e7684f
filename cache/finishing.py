"""Files that others have finished become sealed ones: as they are, or encrypted, and then the clear ones go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from fsdriver.errors import Corrupt

from .adoption import Adopter
from .encrypted import EncryptedFile, copy_in, copy_out
from .files import LocalFile, SealedFile, open_sealed
from .index import Finished
from .keys import ObjectKey
from .opened import OpenFiles
from .scratch import Scratch

AT_ONCE: Final = 1 << 20
"""Bytes of a file that is encrypted in the thread that seals it; a worker does larger ones."""

_log = logging.getLogger("fsdriver.cache")


class Finisher:
    """See the module.

    Parameters
    ----------
    objects : Path
        The directory of sealed files.
    scratch : Scratch
    adopter : Adopter
    opened : OpenFiles
    workers : callable
        Gives threads for what takes long.
    failed : callable
        Told of a file that the disk did not take.
    """

    def __init__(
        self,
        objects: Path,
        scratch: Scratch,
        adopter: Adopter,
        opened: OpenFiles,
        workers: Callable[[], Executor],
        failed: Callable[[ObjectKey, OSError], None],
    ) -> None:
        self._objects = objects
        self._scratch = scratch
        self._adopter = adopter
        self._opened = opened
        self._workers = workers
        self._failed = failed

    def seal(self, key: ObjectKey, path: Path, checksum: bytes | None) -> SealedFile:
        """See `DiskCache.seal`; the caller is a reader of the result."""
        file = open_sealed(path, key.size)
        if file is None:
            raise Corrupt(f"the file to seal is not one of {key.size} bytes that nobody holds exclusively", str(path))
        if key.cipher is None:
            return self._adopter.adopt(Finished(key, str(path), checksum), file)
        path.unlink(missing_ok=True)
        return self._encrypt(key, file)

    def seal_soon(self, key: ObjectKey, path: Path, checksum: bytes | None) -> None:
        """As `seal`, for nobody: a large file that is to be encrypted is sealed a moment later."""
        if key.cipher is None or key.size <= AT_ONCE:
            self._opened.release(self.seal(key, path, checksum))
        else:
            self.seal_many([(key, path)])

    def seal_many(self, files: Sequence[tuple[ObjectKey, Path]]) -> None:
        """See `DiskCache.seal_many`."""
        ready = []
        for key, path in files:
            file = open_sealed(path, key.size)
            if file is None:
                _log.warning("%s is not one of %d bytes that nobody holds exclusively; it is not kept", path, key.size)
            elif key.cipher is None:
                ready.append(Finished(key, str(path)))
            else:
                path.unlink(missing_ok=True)  # nobody shall come to open it
                self._take(key, file)
        if ready:
            self._adopter.adopt_many(ready)

    def rekey(self, old: ObjectKey, new: ObjectKey, discard: Callable[[ObjectKey], None]) -> None:
        """Encrypt a sealed file anew, for another object; the old one goes."""

        def work() -> None:
            file = open_sealed(self._objects / old.place, old.stored, old.file)
            if file is not None:
                self._keep(new, file)
                discard(old)

        self._workers().submit(work)

    def decrypt(self, key: ObjectKey, target: Path, discard: Callable[[ObjectKey], None]) -> bool:
        """Put the bytes of a sealed file at ``target``, and let it go; False if it is not there, or has been changed."""
        try:
            copy_out(key.file(os.open(self._objects / key.place, os.O_RDONLY | os.O_CLOEXEC)), target, key.size)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except Corrupt as error:
            _log.warning("%s: %s; it is fetched anew", key.label, error)
            return False
        discard(key)
        return True

    def _take(self, key: ObjectKey, file: LocalFile) -> None:
        if key.size <= AT_ONCE:
            self._keep(key, file)
        else:
            self._workers().submit(self._keep, key, file)

    def _keep(self, key: ObjectKey, file: LocalFile) -> None:
        """Seal the encrypted copy of a file for nobody; what fails is fetched when it is read."""
        try:
            self._opened.release(self._encrypt(key, file))
        except Corrupt as error:
            _log.warning("%s: %s; it is fetched anew", key.label, error)
        except OSError as error:
            self._failed(key, error)

    def _encrypt(self, key: ObjectKey, source: LocalFile) -> SealedFile:
        file, target = self._scratch.create(key.file)
        assert isinstance(file, EncryptedFile)
        try:
            checksum = copy_in(source, file, key.size)
        except OSError:
            Path(target).unlink(missing_ok=True)
            raise
        return self._adopter.adopt(Finished(key, target, checksum), file)
