"""Sealed files that the machine may not have written to its disk before it went down.

A sealed file is not synced: the kernel writes it within half a minute or so, and what is lost can be fetched again. So
whoever first opens the cache after a boot marks what was sealed in the last minutes before the cache was last used. Such
a file is compared with its checksum before it is read; one that fails, or has none, goes, and is fetched anew.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Final

from .blocks import GRAIN
from .cipher import UNIT
from .files import LocalFile, open_sealed
from .index import Index
from .keys import ObjectKey
from .stats import Counts
from .sums import Checksum

INLINE: Final = 1 << 20
"""Bytes of a file that is compared by who opens it, whichever thread that is."""
_GRAINS: Final = 128
"""Read at a time."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger("fsdriver.cache")


class Suspects:
    """The marked files of one cache directory, as they were when it was opened.

    Parameters
    ----------
    index : Index
    objects : Path
        The directory of sealed files.
    counts : Counts
        ``corrupt`` is counted here.
    """

    def __init__(self, index: Index, objects: Path, counts: Counts) -> None:
        self._index = index
        self._objects = objects
        self._counts = counts
        self._places = index.suspects(_boot())

    def __bool__(self) -> bool:
        return bool(self._places)

    def __contains__(self, place: str) -> bool:
        return place in self._places

    def cleared(self, key: ObjectKey) -> bool:
        """Compare a file with its checksum, reading all of it; False if it was not what was sealed, and has gone."""
        place = key.place
        file = open_sealed(self._objects / place, key.stored)
        expected = self._index.checksum(place)
        unit = UNIT if key.codec else GRAIN
        good = file is not None and expected is not None and checksum_of(file, key.stored, unit) == expected
        try:
            if good:
                self._index.clear(place)
            elif file is not None:
                if expected is None:  # it was written on this host, and uploaded
                    _log.info("%s: its cache file may not have been written to the disk; it is fetched anew", key.label)
                else:
                    self._counts.corrupt += 1
                    _log.warning(
                        "%s: its cache file was damaged when the machine went down; it is fetched anew", key.label
                    )
                (self._objects / place).unlink(missing_ok=True)
                self._index.remove(place)
        except sqlite3.Error as error:
            _log.warning("%s: it is compared with its checksum again next time: %s", key.label, error)
        self._places.discard(place)
        return good


def checksum_of(file: LocalFile, size: int, unit: int = GRAIN) -> bytes:
    """`Checksum` of a file of ``size`` bytes, reading all of it. Raises Corrupt if it is to be decrypted, and is damaged."""
    found = Checksum(unit=unit)
    step = _GRAINS * unit
    for start in range(0, size, step):
        found.add(memoryview(file.read(start, min(step, size - start))))
    return found.digest()


def _boot() -> str:
    """Which boot of the machine this is; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
