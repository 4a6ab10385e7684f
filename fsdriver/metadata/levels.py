"""What listings of a store say about directories: pages of one level, or flat pages that hold many levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fsdriver import names
from fsdriver.backends.base import ObjectInfo, Page


@dataclass(slots=True)
class Level:
    """One directory as the store lists it.

    Attributes
    ----------
    path : str
        Route path of the directory.
    objects : dict of str to ObjectInfo
        By name.
    prefixes : dict of str to None
        Names of what lies deeper, in order.
    exists : bool
        Something is there, if only a marker.
    hidden : int
        Keys that have no name.
    """

    path: str
    objects: dict[str, ObjectInfo] = field(default_factory=dict)
    prefixes: dict[str, None] = field(default_factory=dict)
    exists: bool = False
    hidden: int = 0

    def add_page(self, page: Page, prefix: str) -> None:
        """A page that was asked for with a delimiter; ``prefix`` is the directory's, with its ``/``."""
        self.exists = self.exists or bool(page.objects or page.prefixes)
        skip = len(prefix)
        for info in page.objects:
            if len(info.key) > skip:
                self.add_object(info.key[skip:], info)
        for deeper in page.prefixes:
            name = names.to_name(deeper[skip:-1])
            if name is None or "/" in name:
                self.hidden += 1
            else:
                self.prefixes[name] = None

    def add_object(self, segment: str, info: ObjectInfo) -> None:
        """One object directly in this directory, by the last segment of its key."""
        name = names.to_name(segment)
        if name is None or "/" in name:
            self.hidden += 1
        else:
            self.objects[name] = info


def levels_below(path: str, key: str, objects: Iterable[ObjectInfo]) -> Sequence[Level]:
    """The levels at and below one directory, of all objects below it.

    Parameters
    ----------
    path, key : str
        Route path of the directory, and its key without the ``/`` at the end.
    objects : iterable of ObjectInfo
        With keys that begin with ``key/``.
    """
    top = Level(path, exists=True)
    levels: dict[str, Level | None] = {key: top}
    last = key
    level: Level | None = top
    for info in objects:
        folder, _, segment = info.key.rpartition("/")
        if folder != last:
            last, level = folder, _level(levels, folder)
        if segment and level is not None:
            level.add_object(segment, info)
    return [level for level in levels.values() if level is not None]


def _level(levels: dict[str, Level | None], folder: str) -> Level | None:
    """The level of a key prefix, made and hung into the one above; None where a name on the way cannot be shown."""
    if folder in levels:
        return levels[folder]
    above_key, _, segment = folder.rpartition("/")
    above = _level(levels, above_key)
    name = None if above is None else names.to_name(segment)
    if above is None or name is None:
        if above is not None:
            above.hidden += 1
        levels[folder] = None
        return None
    above.prefixes[name] = None
    made = levels[folder] = Level(f"{above.path}/{name}" if above.path else name, exists=True)
    return made
