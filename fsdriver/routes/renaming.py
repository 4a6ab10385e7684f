"""Renames, as rows of the journal.

A file whose bytes are still in staging goes straight to its final name; one that is in the store is copied there by the server
and then deleted. A directory moves file by file: other hosts may see both names meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsdriver.backends.base import ABSENT
from fsdriver.entry import Entry, Kind, altered
from fsdriver.errors import Stale, Unsupported
from fsdriver.metadata.entries import Uncommitted
from fsdriver.runtime import on_loop
from fsdriver.writeback.pending import Action

if TYPE_CHECKING:
    from fsdriver.routes.changes import NameChanges


def rename_file(route: NameChanges, source: str, moving: Entry, target: str, there: Entry | None) -> None:
    """Move one file, symlink or special node; ``there`` is what the target held (never a directory)."""
    with route.changing():
        moving = route.cached(source) or moving
        there = route.cached(target) or there
        route.must_stand(source, moving)
        if there is not None and there.links:
            route.relink(there, {target: None}, time.time_ns())
        _move(route, source, moving, target, there, time.time_ns())
        route.touch_parent(source)
        route.touch_parent(target)


def _move(route: NameChanges, source: str, moving: Entry, target: str, there: Entry | None, ctime_ns: int) -> None:
    made = altered(moving, ctime_ns=ctime_ns, links=route.relink(moving, {source: target}, ctime_ns))
    replaced = route.journal.get(route.backend.identity, route.key(target))
    base = ABSENT if there is None else there.version
    overwritten = route.uncommitted.pop(target, None)
    if overwritten is not None:
        base = overwritten.base
    fresh = route.uncommitted.get(source)
    if fresh is not None:
        # Not yet committed: the rename is a change of this process's view, its first commit goes to the new name.
        closed = route.closed_entry(source)
        if closed is not None:
            # What an earlier close acknowledged survives a crash under the new name.
            moved = altered(closed, ctime_ns=made.ctime_ns, links=made.links)
            closed = route.owe_same_bytes(source, closed, target, moved, base)
        made = altered(fresh.entry, ctime_ns=made.ctime_ns, links=made.links)
        route.uncommitted[target] = Uncommitted(made, base, closed)
        row = route.journal.held_row(route.backend.identity, route.key(source))
        if row is not None:
            # So does what was synced since.
            route.owe(target, Action.PUT, made, base=base, staging=row.staging, held=True)
    else:
        made = route.owe_same_bytes(source, moving, target, made, base)
    route.remove_file_rows(source, moving)
    if replaced is not None and replaced.staging:
        route.drop_staging(replaced.staging)
    route.memory.change(source, None)
    route.memory.change(target, made)


async def rename_directory(route: NameChanges, source: str, moving: Entry, target: str, there: Entry | None) -> None:
    """Move a directory and all below it."""
    await on_loop()
    directories, files = await _below(route, source, moving)
    for old, _ in files:
        await route.separate(old, target + old[len(source) :])
    for _, entry in files:
        await route.know_links(entry)
    with route.changing():
        for old, entry in files:
            route.must_stand(old, route.cached(old) or entry)
        if there is not None:
            route.remove_directory_rows(target, there)
        for old, entry in directories:
            new = target + old[len(source) :]
            route.memory.made_empty(new, entry)
            route.owe(new, Action.MARKER, entry, base=ABSENT)
            route.owe_attributes({new: entry})
        for old, entry in files:
            # Moving one name of a hard-linked file changes what the others know of it: take the present entry.
            known = route.cached(old) or entry
            _move(route, old, known, target + old[len(source) :], None, known.ctime_ns)
        for old, entry in reversed(directories):
            route.remove_directory_rows(old, entry)
        route.touch_parent(source)
        route.touch_parent(target)
    route.memory.change(source, None)


async def _below(
    route: NameChanges, path: str, entry: Entry
) -> tuple[list[tuple[str, Entry]], list[tuple[str, Entry]]]:
    """(directories, files) at and below a directory, parents first, with their attributes."""
    directories, files = [(path, entry)], []
    for name, child in (await route.list(path)).items():
        inner = f"{path}/{name}"
        if child.kind is Kind.DIRECTORY:
            below = await _below(route, inner, await route.stat(inner))
            directories += below[0]
            files += below[1]
        else:
            files.append((inner, await route.stat(inner)))
    return directories, files


async def exchange_files(route: NameChanges, first: str, one: Entry, second: str, other: Entry) -> None:
    """Swap two names. Raises Unsupported for directories."""
    if Kind.DIRECTORY in (one.kind, other.kind):
        raise Unsupported("directories cannot be exchanged; rename them one after the other", first)
    if first in route.uncommitted or second in route.uncommitted:
        raise Unsupported("a file that is being created cannot be exchanged; close it first", first)
    copied: Entry | None = None
    version: str | None = None
    for _ in range(3):
        with route.changing():
            one, other = route.cached(first) or one, route.cached(second) or other
            stored = one.kind is other.kind is Kind.FILE and one.staging is None and other.staging is None
            if not stored or (copied is not None and one.version == version):
                made_first = _owe_bytes(route, second, other, first, one)
                made_second = _owe_bytes(route, first, copied or one, second, other)
                route.touch_parent(first)
                route.touch_parent(second)
                route.memory.change(first, made_first)
                route.memory.change(second, made_second)
                return
        # Both are in the store: two copies that read from each other would wait for each other for ever.
        if copied is not None and copied.staging is not None:
            route.services.staging.remove(copied.staging)
        version = one.version
        copied = altered(one, staging=str(await route.materialize(first, one)), version=None)
    raise Stale("the two files change faster than they can be exchanged", first)


def _owe_bytes(route: NameChanges, source: str, entry: Entry, target: str, there: Entry) -> Entry:
    """Journal that ``target`` gets the bytes of ``entry``, which ``source`` may have given up already."""
    made = altered(entry, ctime_ns=time.time_ns(), links=())
    if entry.kind is Kind.FILE and entry.staging is None:
        made = altered(made, key=entry.key or route.key(source))
        route.owe(target, Action.COPY, made, base=there.version, source=made.key, source_version=entry.version)
    else:
        made = altered(made, version=None, key=None)
        route.owe(target, Action.PUT, made, base=there.version, staging=entry.staging)
    return made
