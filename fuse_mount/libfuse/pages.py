"""Whose bytes the kernel's page cache holds for a path.

To the kernel, libfuse's inode of a path stays the same when another writer replaces the file, so an open reader of the earlier
version and one of the later would share pages. The first has them; whoever opens other bytes meanwhile goes without.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Owner:
    path: str
    nodeid: int
    opens: int = 0


class PageOwners:
    """Open files that use the page cache, by path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: dict[str, _Owner] = {}
        self._by_handle: dict[int, _Owner] = {}

    def take(self, path: str, nodeid: int, handle: int) -> bool:
        """An open file wants the page cache; False: it holds the bytes of another node, which is still open."""
        with self._lock:
            owner = self._by_path.setdefault(path, _Owner(path, nodeid))
            if owner.nodeid != nodeid:
                return False
            owner.opens += 1
            self._by_handle[handle] = owner
            return True

    def release(self, handle: int) -> None:
        """An open file is closed."""
        with self._lock:
            owner = self._by_handle.pop(handle, None)
            if owner is None:
                return
            owner.opens -= 1
            if not owner.opens and self._by_path.get(owner.path) is owner:
                del self._by_path[owner.path]

    def moved(self, old: str, new: str, *, exchange: bool = False) -> None:
        """A file or directory was renamed: the kernel's inodes go with their names."""
        with self._lock:
            moving = self._below(old, new)
            back = self._below(new, old) if exchange else {}
            for owner in (*moving, *back):
                if self._by_path.get(owner.path) is owner:
                    del self._by_path[owner.path]
            for owner, path in (*moving.items(), *back.items()):
                owner.path = path
                self._by_path[path] = owner

    def _below(self, old: str, new: str) -> dict[_Owner, str]:
        found = [one for one in self._by_path.values() if one.path == old or one.path.startswith(f"{old}/")]
        return {one: new + one.path[len(old) :] for one in found}
