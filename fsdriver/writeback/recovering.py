"""Finishing what dead processes left, for who asks for nothing else: ``fsdriver recover``."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Final

from fsdriver.errors import ConfigError
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.leftovers import UploadLog, abort_uploads, is_dead, sweep_staging
from fsdriver.writeback.staging import Staging
from fsdriver.writeback.uploader import Uploader

_AMAZON: Final = "amazonaws.com"


def owing_stores(state: Path) -> set[str]:
    """Identities of the stores to which the journal of a state directory owes anything."""
    path = state / "catalog.db"
    if not path.exists():
        return set()
    with closing(Journal(path)) as journal:
        return journal.stores()


def sweep(state: Path, staging: Path) -> int:
    """Remove what dead processes were writing and had not closed; returns how many files."""
    path = state / "catalog.db"
    if not path.exists() or not staging.is_dir():
        return 0
    with closing(Journal(path)) as journal:
        return sweep_staging(Staging(staging), journal)


def url_of(store: str) -> tuple[str, str]:
    """URL of the root of a store, and its endpoint ("" the usual one).

    Raises
    ------
    ConfigError
        An identity does not tell it: the store must be named.
    """
    scheme, location, container = store.split("|", 2)
    if scheme == "stack":
        text = "something is owed to a route over several tiers; recover it with the configuration that has that route"
        raise ConfigError(text, f"{location}|{container}")
    if scheme == "s3":
        return f"s3://{container}", "" if location == _AMAZON else location
    if scheme in {"file", "direct"}:
        return f"{scheme}://{container or '/'}", ""
    raise ConfigError(f"something is owed to {store}; name its URL: fsdriver recover URL -o …", store)


class Recovery:
    """What dead processes left for one store.

    Parameters
    ----------
    uploader : Uploader
        Of this process; it becomes the one that uploads, unless a living process is.
    """

    def __init__(self, uploader: Uploader) -> None:
        self._uploader = uploader
        self._store = uploader.backend.identity

    def left(self) -> int:
        """Changes of names, bytes and attributes that are owed, but those of files which living processes have open."""
        journal = self._uploader.journal
        rows, _ = journal.count(self._store)
        return rows + journal.attributes.count(self._store) - self.of_the_living()

    def parts(self) -> int:
        """Uploads in parts that dead processes began: what they sent takes room in the store."""
        uploads = UploadLog(self._uploader.journal, self._store)
        return sum(1 for _, _, whose in uploads.under_way() if is_dead(whose))

    def of_the_living(self) -> int:
        """Files that were synced and are still open in some process."""
        uploader = self._uploader
        held = uploader.journal.held(self._store)
        return sum(1 for row in held if row.staging is not None and uploader.staging.is_open(row.staging))

    def holder(self) -> str | None:
        """The living process that uploads to the store; None if there is none, and this one may."""
        pid = self._uploader.lock.holder()
        if pid is None:
            return None
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            arguments = []
        command = " ".join(os.fsdecode(one) for one in arguments if one)
        return f"process {pid} ({command})" if command else f"process {pid}" if pid else "another process"

    async def finish(self, timeout: float | None) -> None:
        """Send all of it, going on past what a store does not take.

        Raises
        ------
        FsdriverError
            The first failure, when everything else is done or the store is out of reach; TimedOut after ``timeout``.
        """
        await self._uploader.wait(lambda: self.left() > 0, lambda _: True, timeout, drain=True)
        await abort_uploads(self._uploader.backend, self._uploader.journal)
