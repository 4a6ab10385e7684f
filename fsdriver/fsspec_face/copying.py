"""Copies inside one route: made by the store where it can, never through this machine."""

from __future__ import annotations

import time
from dataclasses import replace

from fsdriver.backends import ABSENT
from fsdriver.entry import Entry, Kind
from fsdriver.errors import IsDirectory
from fsdriver.routes.route import Route


async def copy_within(route: Route, source: str, target: str) -> Entry:
    """Give ``target`` the bytes and attributes ``source`` has now; bytes still in staging are owed to both.

    Parameters
    ----------
    route : Route
    source, target : str
        Names within it.

    Raises
    ------
    NotFound
    IsDirectory
        ``target`` is a directory.
    """
    route.must_be_writable(target)
    made = await route.while_it_stands(lambda: _owe_copy(route, source, target))
    await route.settle([target])
    return route.cached(target) or made


async def _owe_copy(route: Route, source: str, target: str) -> Entry:
    await route.separate(source, target)
    entry = await route.stat(source)
    there = await route.find_entry(target)
    if there is not None and there.kind is Kind.DIRECTORY:
        raise IsDirectory("is a directory", target)
    now = time.time_ns()
    inode = there.ino if there is not None and not there.links else route.inode(f"{route.key(target)}|{now}")
    made = replace(entry, ino=inode, links=(), mtime_ns=now, ctime_ns=now)
    await route.ensure_parents(target)
    if there is not None:
        await route.know_links(there)
    with route.changing():
        route.must_stand(source, entry)
        if there is not None and there.links:
            route.relink(there, {target: None}, now)
        made = route.owe_same_bytes(source, entry, target, made, ABSENT if there is None else there.version)
        route.touch_parent(target)
        if there is not None and there.staging is not None:
            route.drop_staging(there.staging)
    route.memory.change(target, made)
    return made
