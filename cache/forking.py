"""What a fork does to objects with locks, threads and connections: none is in use while it happens, the child begins anew."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Told of every fork from `watch` on."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork(self) -> None:
        """In the child."""


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()
_forking: list[Forked] = []
"""Those whose locks are held while the process forks."""


def watch(one: Forked) -> None:
    """Tell it of every fork, as long as it lives."""
    _watched.add(one)


def _before_fork() -> None:
    _forking.extend(_watched)
    for one in _forking:
        one.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork() -> None:
    _forking.clear()
    for one in _watched:
        one.after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
