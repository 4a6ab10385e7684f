"""What the cache keeps of what was sent: staging files become its copies of the versions that the store gave them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.writeback import intents
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.outgoing import Sent
from fsdriver.writeback.pending import Action, Pending
from fsdriver.writeback.staging import Signature, Staging

log = logging.getLogger(__name__)


class Sealer:
    """See the module.

    Parameters
    ----------
    store : str
        Identity of the backend.
    journal : Journal
    staging : Staging
    cache : DiskCache
    """

    def __init__(self, store: str, journal: Journal, staging: Staging, cache: DiskCache) -> None:
        self._store = store
        self._journal = journal
        self._staging = staging
        self._cache = cache
        self._unsealed: dict[Path, tuple[str, str, Signature]] = {}

    def seal_sent(self, sent: Sequence[Sent]) -> None:
        """Let the cache keep the bytes of what was carried out."""
        finished: list[tuple[ObjectKey, Path]] = []
        for one in sent:
            row = one.row
            if row.staging and self._staging.opened(row.staging) is None and not self._journal.uses(row.staging):
                finished += self._sealable(row.key, one.version, Path(row.staging))
            if row.action is Action.COPY:
                try:
                    self._rekey(row, one.version)
                except OSError as error:
                    log.warning("what was copied on the store is not in the cache: %s", error)
        self._seal(finished)

    def seal(self, key: str, version: str, path: Path) -> None:
        """Make an uploaded staging file the cache's copy of that version; one that another process has open, later."""
        self._seal(self._sealable(key, version, path))

    def _seal(self, finished: Sequence[tuple[ObjectKey, Path]]) -> None:
        if self._store in self._cache.streamed:
            for _, path in finished:
                self._staging.remove(path)
            return
        try:
            self._cache.seal_many(finished)
        except OSError as error:
            log.warning("what was uploaded is not in the cache yet: %s", error)
            for key, path in finished:
                self._leave(key.key, key.version, path)

    def _leave(self, key: str, version: str, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._unsealed[path] = key, version, _signature(path)

    def _sealable(self, key: str, version: str, path: Path) -> list[tuple[ObjectKey, Path]]:
        try:
            lock = self._staging.lock_exclusive(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("what was uploaded is not in the cache yet: %s", error)
            lock = None
        if lock is None:
            self._leave(key, version, path)
            return []
        intents.erase(path)
        size = os.fstat(lock).st_size
        os.close(lock)
        return [(self._cache.key(self._store, key, version, size), path)]

    def seal_left(self) -> None:
        """Seal what somebody had open when it was uploaded; what was written to since is in the hands of its writer."""
        for path, (key, version, before) in list(self._unsealed.items()):
            try:
                if self._journal.uses(str(path)) or _signature(path) != before:
                    del self._unsealed[path]
                elif not self._staging.is_open(path):
                    del self._unsealed[path]
                    self.seal(key, version, path)
            except FileNotFoundError:
                del self._unsealed[path]
            except OSError as error:
                log.debug("%s cannot be sealed yet: %s", path, error)

    def _rekey(self, row: Pending, version: str) -> None:
        """The copy's bytes are in the cache under the key they were copied from: move them to their new key."""
        assert row.source is not None
        if row.source_version is None:
            return
        old = self._cache.key(self._store, row.source, row.source_version, row.size)
        self._cache.rekey(old, self._cache.key(self._store, row.key, version, row.size), self._staging.name())

    def from_cache(self, row: Pending) -> Pending:
        """The source of a rename was overwritten by others: its bytes may still be in the cache."""
        assert row.source is not None
        assert row.source_version is not None
        sealed = self._cache.key(self._store, row.source, row.source_version, row.size)
        path = self._staging.name()
        if self._cache.contains(sealed) and self._cache.unseal(sealed, path, reader=None):
            return replace(row, action=Action.PUT, staging=str(path), source=None, source_version=None)
        return replace(row, action=Action.PUT, staging=None)


def _signature(path: Path) -> Signature:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
