"""The catalog that several hosts share, in Redis (7 or later).

Every change is one script, so hosts see all of it or nothing. A script that is sent again because its answer was lost does not do
anything twice. Redis may lose all of it: what it does not know is unknown, and found again in the tiers.

Claims of moves end by themselves unless they are renewed, so that moves of a host that died are another's after `LEASE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

from redis.asyncio import Redis

from fsdriver.cache.heat import Uses
from fsdriver.config import CatalogConfig
from fsdriver.errors import FsdriverError
from fsdriver.runtime import on_loop
from fsdriver.tiers import redis_scripts as scripts
from fsdriver.tiers.catalog import Catalog, Holdings
from fsdriver.tiers.order import blob, end_of, parent_of, text
from fsdriver.tiers.records import Copy, CopyState, Move, Record
from fsdriver.tiers.redis_connection import RedisConnection

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 30.0
"""For which a move is its owner's, unless that is renewed."""
PAGE: Final = 1000
"""Records that are read at a time."""
BATCH: Final = 200
"""Records and moves that are written at a time: Redis does nothing else meanwhile."""


def base_name(prefix: str, stack: str) -> str:
    """What all names of a stack begin with."""
    return f"{prefix}:{{{hashlib.sha256(blob(stack)).hexdigest()[:32]}}}"


class RedisCatalog(Catalog):
    """See the module.

    Parameters
    ----------
    config : CatalogConfig
        With a URL.
    lease : float, optional
        Seconds for which claimed moves are their owner's.
    """

    def __init__(self, config: CatalogConfig, lease: float = LEASE_SECONDS) -> None:
        self.connection = RedisConnection(config)
        self.lease = lease
        self._claims: dict[str, Claims] = {}

    async def script(self, code: str, stack: str, *values: Any) -> Any:
        """The answer of one of `fsdriver.tiers.redis_scripts` about a stack."""
        base = self._base(stack)
        return await self._ask(lambda client: client.register_script(code)(keys=[base], args=values))

    async def _ask(self, work: Callable[[Redis], Any]) -> Any:
        return await self.connection.do(work)

    def _base(self, stack: str) -> str:
        return base_name(self.connection.prefix, stack)

    # -- records -------------------------------------------------------------------------------------------------------

    async def get(self, stack: str, key: str) -> Record | None:
        return (await self._records(stack, [blob(key)]))[0]

    async def get_many(self, stack: str, keys: Sequence[str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for at in range(0, len(keys), PAGE):
            records = await self._records(stack, [blob(key) for key in keys[at : at + PAGE]])
            found |= {record.key: record for record in records if record is not None}
        return found

    async def _records(self, stack: str, keys: Sequence[bytes]) -> list[Record | None]:
        base = self._base(stack)
        fields = [kind + key for key in keys for kind in (b"o", b"u")]
        values = await self._ask(lambda client: client.hmget(f"{base}:r", fields))
        return [
            None if stored is None else _record(key, stored, uses)
            for key, stored, uses in zip(keys, values[::2], values[1::2], strict=True)
        ]

    async def swap(
        self, stack: str, record: Record, serial: int, moves: Sequence[Move] = (), done: Move | None = None
    ) -> Record | None:
        key = blob(record.key)
        gone = record.removed and not record.copies
        answer = await self.script(
            scripts.SWAP, stack, key, serial, secrets.token_hex(8), b"" if gone else _stored(record), _dump_uses(record.uses),
            _child(key), b"" if done is None else _name(done), *_owed(moves),
        )  # fmt: skip
        if answer is None:
            return None
        if done is not None:
            self._settled(stack, done)
        return replace(record, serial=int(answer[0]), uses=_uses(answer[1]))

    async def adopt(self, stack: str, records: Sequence[Record]) -> None:
        for at in range(0, len(records), BATCH):
            values: list[Any] = []
            for record in records[at : at + BATCH]:
                key = blob(record.key)
                values += (key, _stored(record), _dump_uses(record.uses), _child(key))
            await self.script(scripts.ADOPT, stack, "0", *values)

    async def of_directory(self, stack: str, directory: str) -> AsyncGenerator[Record]:
        parent = blob(directory)
        start = parent + b"\0"
        async for members in self._pages(stack, "d", b"[" + start, b"(" + parent + b"\1"):
            keys = [parent + member[len(start) :] for member in members]
            # What lies in a directory whose own name goes on with a NUL is in between.
            for record in await self._records(stack, [key for key in keys if parent_of(key) == parent]):
                if record is not None:
                    yield record

    async def below(self, stack: str, prefix: str, after: str = "") -> AsyncGenerator[Record]:
        start, last = blob(prefix), blob(after)
        least = b"(" + last if last and last >= start else b"[" + start if start else b"-"
        async for keys in self._pages(stack, "k", least, _before(end_of(start))):
            for record in await self._records(stack, keys):
                if record is not None:
                    yield record

    async def owing_removals(self, stack: str) -> AsyncGenerator[Record]:
        async for keys in self._pages(stack, "w", b"-", b"+"):
            for record in await self._records(stack, keys):
                if record is not None:
                    yield record

    async def _pages(self, stack: str, names: str, least: bytes, most: bytes) -> AsyncGenerator[list[bytes]]:
        """Members of a sorted set, in the order of their bytes."""
        name = f"{self._base(stack)}:{names}"
        while True:
            page = await self._ask(partial(_range, name=name, least=least, most=most))
            if page:
                yield page
            if len(page) < PAGE:
                return
            least = b"(" + page[-1]

    async def note_uses(self, stack: str, uses: Mapping[str, tuple[int, float]]) -> None:
        noted = list(uses.items())
        for at in range(0, len(noted), BATCH):
            values = [
                value for key, (count, last) in noted[at : at + BATCH] for value in (blob(key), count, repr(last))
            ]
            await self.script(scripts.NOTE_USES, stack, *values)

    async def holdings(self, stack: str) -> dict[str, Holdings]:
        base = self._base(stack)
        held = await self._ask(lambda client: client.hgetall(f"{base}:h"))
        sums = {name.decode(): int(value) for name, value in held.items()}
        tiers = [name[1:] for name in sums if name.startswith("o")]
        return {unquote(tier): Holdings(sums[f"o{tier}"], sums.get(f"b{tier}", 0)) for tier in tiers}

    async def forget(self, stack: str) -> None:
        base = self._base(stack)
        names = [
            f"{base}:{name}" for name in ("r", "k", "d", "w", "h", "md", "mn", "mk", "due", "late", "held", "mo", "seq")
        ]
        await self._ask(lambda client: client.unlink(*names))

    # -- moves ---------------------------------------------------------------------------------------------------------

    async def owe(self, stack: str, moves: Sequence[Move]) -> int:
        new = 0
        for at in range(0, len(moves), BATCH):
            new += await self.script(scripts.OWE, stack, *_owed(moves[at : at + BATCH]))
        return new

    async def claim_moves(self, stack: str, owner: str, now: float, limit: int) -> list[Move]:
        """See `Catalog`. They stay the owner's as long as this process lives and has not claimed for another owner."""
        claims = self._claims.get(stack)
        if claims is not None and claims.owner != owner:
            await claims.give_up()
            claims = None
        if claims is None:
            claims = self._claims[stack] = Claims(self, stack, owner, self.lease)
        answer = await self.script(scripts.CLAIM, stack, owner, repr(now), limit, int(self.lease * 1000))
        claims.add(name for name, _, _ in answer)
        return [_move(data, int(float(number))) for _, number, data in answer]

    async def end_move(self, stack: str, move: Move) -> None:
        await self.script(scripts.END, stack, _name(move))
        self._settled(stack, move)

    async def fail_move(self, stack: str, move: Move) -> None:
        claims = self._claims.get(stack)
        owner = claims.owner if claims is not None and _name(move) in claims.names else ""
        await self.script(scripts.FAIL, stack, owner, _name(move), _dump_move(move), repr(move.not_before))
        self._settled(stack, move)

    def _settled(self, stack: str, move: Move) -> None:
        if stack in self._claims:
            self._claims[stack].names.discard(_name(move))

    async def moves(self, stack: str, key: str | None = None) -> AsyncGenerator[Move]:
        base = self._base(stack)
        if key is not None:
            start = blob(key)
            async for names in self._pages(stack, "mk", b"[" + start + b"\0", b"(" + start + b"\1"):
                for move in await self._moves_named(base, names):
                    if move.key == key:
                        yield move
            return
        after = 0
        while True:
            page = await self._ask(partial(_numbers, name=f"{base}:mn", after=after))
            for move in await self._moves_named(base, [name for name, _ in page], [number for _, number in page]):
                yield move
            if len(page) < PAGE:
                return
            after = int(page[-1][1])

    async def _moves_named(self, base: str, names: list[Any], numbers: Sequence[float | None] = ()) -> list[Move]:
        if not names:
            return []
        found = await self._ask(lambda client: client.hmget(f"{base}:md", names))
        numbers = numbers or await self._ask(lambda client: client.zmscore(f"{base}:mn", names))
        return [_move(data, int(number or 0)) for data, number in zip(found, numbers, strict=True) if data is not None]

    async def close(self) -> None:
        for claims in list(self._claims.values()):
            with suppress(FsdriverError):  # they end by themselves
                await claims.give_up()
        await self.connection.close()


class Claims:
    """Moves that one owner works on, renewed as long as they are.

    Parameters
    ----------
    catalog : RedisCatalog
    stack, owner : str
    lease : float
        Seconds.
    """

    def __init__(self, catalog: RedisCatalog, stack: str, owner: str, lease: float) -> None:
        self.owner = owner
        self.names: set[bytes] = set()
        self._catalog = catalog
        self._stack = stack
        self._lease = lease
        self._task: asyncio.Task[None] | None = None

    def add(self, names: Iterable[bytes]) -> None:
        """Claimed just now."""
        self.names.update(names)
        if self.names and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while self.names:
            await asyncio.sleep(self._lease / 3)
            asked = list(self.names)
            try:
                kept = await self._catalog.script(
                    scripts.RENEW, self._stack, self.owner, int(self._lease * 1000), *asked
                )
            except FsdriverError as error:
                log.warning("%s: the claims of moves could not be renewed: %s", self._stack, error)
            else:
                self.names -= set(asked) - set(kept)

    async def give_up(self) -> None:
        """Let others have them."""
        await on_loop()
        names, self.names = list(self.names), set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if names:
            await self._catalog.script(scripts.RELEASE, self._stack, self.owner, *names)


async def _range(client: Redis, name: str, least: bytes, most: bytes) -> Any:
    return await client.zrangebylex(name, least, most, 0, PAGE)


async def _numbers(client: Redis, name: str, after: int) -> Any:
    return await client.zrangebyscore(name, f"({after}", "+inf", 0, PAGE, withscores=True)


def _before(end: bytes | None) -> bytes:
    return b"+" if end is None else b"(" + end


def _child(key: bytes) -> bytes:
    """Under which a directory lists a key."""
    parent = parent_of(key)
    return parent + b"\0" + key[len(parent) :]


def _stored(record: Record) -> bytes:
    """A record as Redis has it, without serial and token: what scripts have to know, and the content."""
    tiers = ",".join(quote(tier, safe="") for tier in record.holders())
    content = json.dumps(
        [
            record.version, record.size, record.mtime_ns,
            {tier: (copy.version, copy.state, copy.checked) for tier, copy in record.copies.items()},
            record.sha256.hex() if record.sha256 is not None else None, record.pin,
        ]
    )  # fmt: skip
    return f"{record.size} {int(bool(record.owed()))} {tiers} {content}".encode()


def _record(key: bytes, stored: bytes, uses: bytes | None) -> Record:
    serial, _, _, _, _, content = stored.split(b" ", 5)
    version, size, mtime_ns, copies, sha256, pin = json.loads(content)
    return Record(
        text(key), version, size, mtime_ns,
        {tier: Copy(own, CopyState(state), checked) for tier, (own, state, checked) in copies.items()},
        None if sha256 is None else bytes.fromhex(sha256), _uses(uses), pin, int(serial),
    )  # fmt: skip


def _dump_uses(uses: Uses) -> str:
    return f"{uses.first!r} {uses.last!r} {uses.count}"


def _uses(stored: bytes | None) -> Uses:
    first, last, count = (stored or b"0 0 0").split()
    return Uses(float(first), float(last), int(count))


def _name(move: Move) -> bytes:
    return b"\0".join((blob(move.key), blob(move.version), blob(move.target)))


def _owed(moves: Sequence[Move]) -> list[Any]:
    return [value for move in moves for value in (_name(move), _dump_move(move), repr(move.not_before))]


def _dump_move(move: Move) -> str:
    return json.dumps(
        [
            move.key,
            move.version,
            move.target,
            move.leaves,
            move.reason,
            move.size,
            move.failures,
            move.not_before,
            move.error,
        ]
    )


def _move(data: bytes, number: int) -> Move:
    key, version, target, leaves, reason, size, failures, not_before, error = json.loads(data)
    return Move(key, version, target, tuple(leaves), reason, size, number, failures, not_before, error)
