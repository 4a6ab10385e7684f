"""What a staging file says of itself: the row of the journal that was acknowledged for it, in an extended attribute.

The catalog is what counts. The attribute is for the day it is gone: a damaged or deleted catalog is made again from the staging
files, and a new catalog does not take for leftovers what another one owes (`fsdriver.writeback.rebuilding`).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fsdriver.names import escape, unescape
from fsdriver.writeback.pending import Action, Pending

log = logging.getLogger(__name__)

ATTRIBUTE: Final = "user.fsdriver.owed"
FORMAT: Final = 1
_FIELDS: Final = ("store", "key", "parent", "seq", "root", "path", "base", "size", "record", "held")
_UNABLE: Final = {errno.EOPNOTSUPP, errno.ENOSPC, errno.E2BIG, errno.EDQUOT, errno.EPERM}

_told: set[int] = set()


@dataclass(frozen=True, slots=True)
class Intent:
    """What is owed from one staging file.

    Attributes
    ----------
    row : Pending
        As it was acknowledged.
    owner : str
        `Catalog.owner` of the catalog that has the row.
    catalog : str
        Path of that catalog.
    """

    row: Pending
    owner: str
    catalog: str


def stamp(row: Pending, owner: str, catalog: str) -> None:
    """Have the staging file of a row say what is owed from it; one system call. Where it cannot, this is said once."""
    assert row.staging is not None
    told: dict[str, Any] = {
        "format": FORMAT, "owner": owner, "catalog": catalog, "name": os.path.basename(row.staging), "store": row.store,
        "key": row.key, "parent": row.parent, "seq": row.seq, "root": row.root, "path": escape(row.path), "base": row.base,
        "size": row.size, "record": row.record, "held": row.held,
    }  # fmt: skip
    try:
        try:
            os.setxattr(row.staging, ATTRIBUTE, json.dumps(told).encode())
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.E2BIG} or row.record is None:
                raise
            # ext4 has room for 4 KiB of them: extended attributes of the file itself are what may be long.
            told["record"] = {name: value for name, value in row.record.items() if name != "xattrs"}
            os.setxattr(row.staging, ATTRIBUTE, json.dumps(told).encode())
    except FileNotFoundError:
        pass  # sent and sealed away by another process, or deleted: the journal knows
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        if error.errno not in _told:
            _told.add(error.errno or 0)
            log.warning(
                "%s: staging files cannot carry what is owed from them (%s): without the catalog they could not be told apart",
                os.path.dirname(row.staging),
                error.strerror,
            )


def erase(path: str | Path) -> None:
    """Nothing is owed from a file any more: the cache may keep it, or another writes to it."""
    try:
        os.removexattr(path, ATTRIBUTE)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOENT, errno.EOPNOTSUPP}:
            raise


def read(path: str | Path) -> Intent | None:
    """What a staging file says; None if that is nothing, or was said of it under another name."""
    try:
        told: dict[str, Any] = json.loads(os.getxattr(path, ATTRIBUTE))
        if told["format"] != FORMAT or told["name"] != os.path.basename(path):
            return None
        row = Pending(**{name: told[name] for name in _FIELDS}, action=Action.PUT, staging=str(path))
        return Intent(replace(row, path=unescape(row.path)), str(told["owner"]), str(told["catalog"]))
    except OSError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s: what it says of itself is not understood: %r", path, error)
        return None


def is_alive(intent: Intent, catalog: Path) -> bool:
    """Whether what owes a staging file is another catalog than the one at ``catalog``, and still there."""
    if intent.catalog == str(catalog):
        return False
    try:
        with closing(sqlite3.connect(f"{Path(intent.catalog).as_uri()}?mode=ro", uri=True)) as db:
            identity = int(db.execute("PRAGMA application_id").fetchone()[0])
    except (sqlite3.Error, ValueError):
        return False
    return f"{identity:08x}-" == intent.owner
