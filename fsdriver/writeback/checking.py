"""Whether staging has what the journal owes: the part of ``fsdriver verify`` that looks at the catalog and at staging."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fsdriver.errors import ConfigError, FsdriverError
from fsdriver.writeback import intents
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.leftovers import is_left
from fsdriver.writeback.pending import Pending
from fsdriver.writeback.staging import Staging


@dataclass
class Standing:
    """What was found.

    Attributes
    ----------
    rows, bytes : int
        Changes that wait for the stores, and the bytes of their files.
    leftovers : int
        Files that nobody is owed, of processes that died: the next start removes them.
    problems : list of str
    """

    rows: int = 0
    bytes: int = 0
    leftovers: int = 0
    problems: list[str] = field(default_factory=list)


def check(state: Path, staging: Path) -> Standing:
    """Compare catalog and staging, beside processes that use them.

    Raises
    ------
    ConfigError
        A newer program wrote the catalog, or it is being repaired.
    """
    found = Standing()
    path = state / "catalog.db"
    if not path.exists():
        if any(intents.read(one.path) for one in _entries(staging)):
            found.problems.append(
                f"{path}: there is no catalog, and staging has files that were acknowledged: fsdriver fsck"
            )
        return found
    try:
        journal = Journal(path)
        journal.must_be_whole()
    except ConfigError:
        raise
    except FsdriverError as error:
        found.problems.append(str(error))
        return found
    try:
        files = Staging(staging)
        for row in journal.everything():
            found.rows += 1
            found.bytes += row.size if row.staging else 0
            problem = _wrong(row, files)
            if problem and _stands(journal, row):
                found.problems.append(f"{row.path} ({row.store}): {problem}")
        for entry in _entries(staging):
            if not is_left(entry.name) or journal.uses(entry.path) or files.is_open(entry.path):
                continue
            intent = intents.read(entry.path)
            if intent is None or intent.owner == journal.owner:
                found.leftovers += 1
            elif not intents.is_alive(intent, path):
                what = f"{intent.row.path} ({intent.row.store})"
                found.problems.append(f"{what}: {entry.path} was acknowledged, and its catalog is gone: fsdriver fsck")
    finally:
        journal.close()
    return found


def _wrong(row: Pending, files: Staging) -> str:
    if row.staging is None:
        return ""
    try:
        size = os.stat(row.staging).st_size
    except FileNotFoundError:
        return f"the bytes that were to be uploaded are gone: {row.staging} is not there"
    if size == row.size or row.held or files.is_open(row.staging):
        return ""
    return f"{row.staging} has {size:,} bytes; {row.size:,} were acknowledged"


def _stands(journal: Journal, row: Pending) -> bool:
    """It was neither sent nor replaced meanwhile."""
    now = journal.held_row(row.store, row.key) if row.held else journal.get(row.store, row.key)
    return now is not None and (now.seq, now.staging) == (row.seq, row.staging)


def _entries(staging: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(staging), key=lambda entry: entry.name) if staging.is_dir() else []
