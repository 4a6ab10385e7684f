"""Where the bytes of a file are, and moving them: for commands, attributes and the Python API."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from fsdriver.entry import Kind
from fsdriver.errors import NotFound, Unsupported
from fsdriver.routes.route import Route
from fsdriver.runtime import on_loop
from fsdriver.tiers.records import Record
from fsdriver.tiers.stack import Stack


def stack_of(route: Route) -> Stack:
    """The stack that keeps a route's files. Raises Unsupported."""
    if isinstance(route.backend, Stack):
        return route.backend
    raise Unsupported("this route has one tier; name several in its 'tiers'", route.path)


async def move(route: Route, path: str, tier: str, *, keep: bool = False, pin: bool = False) -> Mapping[str, Any]:
    """Have the bytes of a file in a tier; those that have not been sent yet are, first. Arguments and errors are `Stack.move`'s.

    Returns
    -------
    mapping
        As of `explain`.
    """
    await on_loop()
    stack = stack_of(route)
    await route.sync(path)
    await stack.move(await _key(route, path), tier, keep=keep, pin=pin)
    return await explain(route, path)


async def explain(route: Route, path: str) -> Mapping[str, Any]:
    """What is known of a file: its copies, its heat, what is owed.

    Returns
    -------
    mapping
        ``tiers`` (names, hot to cold), ``copies`` (by tier: version, state, checked), ``version``, ``size``, ``heat``, ``uses``,
        ``last_use``, ``pin``, ``sha256``, ``moves`` (owed: target, leaves, reason, error), ``next`` (what the rules want: target,
        leaves, reason), ``next_due`` (in how many seconds; None: never, as things are), ``held`` (what keeps them from it),
        ``rules`` (fields of `fsdriver.tiers.rules.Prospect`).
    """
    await on_loop()
    stack = stack_of(route)
    await stack.note_uses(at_once=True)
    record = await stack.finder.record(await _key(route, path))
    if record is None:
        raise NotFound("the tiers do not have it yet", path)
    async with aclosing(stack.catalog.moves(stack.identity, record.key)) as moves:
        owed = [
            {"target": move.target, "leaves": move.leaves, "reason": move.reason, "error": move.error} async for move in moves
        ]  # fmt: skip
    return _described(record) | {"tiers": list(stack.tiers), "moves": owed} | _prospects(stack, record)


def _prospects(stack: Stack, record: Record) -> dict[str, Any]:
    """What the rules say of a file, as `explain` tells it."""
    if stack.policy is None:
        return {"next": [], "next_due": None, "held": "", "rules": []}
    told = stack.policy.explain(record, time.time())
    coming = told.moves or told.next_moves
    return {
        "next": [{"target": move.target, "leaves": move.leaves, "reason": move.reason} for move in coming],
        "next_due": 0.0 if told.moves else told.next_due,
        "held": told.held,
        "rules": [asdict(prospect) for prospect in told.prospects],
    }


async def sweep(routes: Sequence[Route], *, dry_run: bool = False) -> Mapping[str, Any]:
    """Have the rules look at all files of some routes now; what they want to move is owed, unless it is a ``dry_run``.

    Returns
    -------
    mapping
        ``moves`` (of a dry run: path, target, leaves, reason, size), ``owed`` (how many are new), ``bytes``.
    """
    await on_loop()
    told: list[dict[str, Any]] = []
    owed = size = 0
    for route in routes:
        if not isinstance(stack := route.backend, Stack):
            continue
        await stack.note_uses(at_once=True)
        moves = [move async for move in stack.wanted(time.time())]
        size += sum(move.size for move in moves)
        if dry_run:
            told += [
                {"path": f"{route.path.rstrip('/')}/{move.key}", "target": move.target, "leaves": move.leaves,
                 "reason": move.reason, "size": move.size}
                for move in moves
            ]  # fmt: skip
        else:
            owed += await stack.catalog.owe(stack.identity, moves)
            stack.owing()
    return {"moves": told, "owed": owed, "bytes": size}


def _described(record: Record) -> dict[str, Any]:
    return {
        "version": record.version,
        "size": record.size,
        "copies": {
            tier: {"version": copy.version, "state": str(copy.state), "checked": copy.checked}
            for tier, copy in record.copies.items()
        },
        "heat": heat_of(record),
        "uses": record.uses.count,
        "last_use": record.uses.last,
        "pin": record.pin,
        "sha256": record.sha256.hex() if record.sha256 is not None else None,
    }


def heat_of(record: Record) -> float:
    """Heat as of now; 0.0 for what was never used."""
    return record.uses.heat(time.time()) if record.uses.count else 0.0


async def record_of(route: Route, path: str) -> Record | None:
    """What a stack knows of a file, copies hot to cold; None: its route has one tier, or its bytes have not been sent."""
    if not isinstance(stack := route.backend, Stack):
        return None
    await on_loop()
    record = await stack.finder.record(await _key(route, path))
    if record is None:
        return None
    return replace(record, copies={name: record.copies[name] for name in stack.tiers if name in record.copies})


async def _key(route: Route, path: str) -> str:
    entry = await route.stat(path)
    if entry.kind is not Kind.FILE:
        raise Unsupported(f"is a {entry.kind}: only files lie in tiers", path)
    return entry.key or route.key(path)
