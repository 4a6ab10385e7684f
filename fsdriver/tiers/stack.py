"""A stack of tiers as one store: what routes, cache and journal see of it.

An object has one version in the stack, that of the tier to which it was written; copies in other tiers carry it along. So nothing
above notices when bytes move.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdriver.backends.model import Counters, ObjectInfo, Page
from fsdriver.backends.outage import Outage
from fsdriver.backends.retry import RetryPolicy
from fsdriver.backends.store import Store
from fsdriver.errors import BackendError, ConfigError, FsdriverError, NotFound, Stale, Unreachable, Unsupported
from fsdriver.tiers.catalog import Catalog, Holdings
from fsdriver.tiers.finding import Finder, good, is_away
from fsdriver.tiers.moving import Mover
from fsdriver.tiers.policy import Policy
from fsdriver.tiers.reading import TieredReader
from fsdriver.tiers.records import Move, Record
from fsdriver.tiers.removing import Remover
from fsdriver.tiers.sweeping import sweep
from fsdriver.tiers.tier import Tier, without_marks
from fsdriver.tiers.writing import TieredWriter, Written

if TYPE_CHECKING:
    from fsdriver.backends.source import Source

PAGE: Final = 1000
DELETES_AT_ONCE: Final = 10
USES_KEPT: Final = 1000
"""Objects whose uses are noted together at the latest."""
USES_SECONDS: Final = 5.0
"""And seconds."""


class Stack(Store):
    """See the module.

    Parameters
    ----------
    tiers : sequence of Tier
        Hot to cold; replicas last.
    catalog : Catalog
        Not closed with the stack.
    scratch : Path
        Directory for objects on their way between tiers.
    policy : Policy, optional
        Without it nothing moves of its own accord.
    entry : str, optional
        Name of the tier where new objects come to lie; by default the first.
    replicas : sequence of str
        Names of tiers that get a copy of every object.
    ack : int, optional
        Copies that there must be before a write counts as done; by default one, and one for each replica.
    everywhere : str
        Keys that begin with this get a copy in every tier.
    owing : callable
        Is called when a move or a removal was left owed.
    """

    scheme = "stack"

    def __init__(
        self,
        tiers: Sequence[Tier],
        catalog: Catalog,
        scratch: Path,
        *,
        policy: Policy | None = None,
        entry: str | None = None,
        replicas: Sequence[str] = (),
        ack: int | None = None,
        everywhere: str = ".fsdriver/",
        owing: Callable[[], None] = lambda: None,
    ) -> None:
        self.tiers = {tier.name: tier for tier in tiers}
        first = self.tiers[entry] if entry is not None else tiers[0]
        _check_tiers(tiers, first)
        self._identity = f"stack|{tiers[0].backend.identity}|{tiers[0].prefix}"
        self.policy = policy
        self.catalog = catalog
        self.counters = Counters()
        self.finder = Finder(self._identity, tiers, catalog)
        self.remover = Remover(self.finder)
        self.reader = TieredReader(self.finder, owing)
        self.writer = TieredWriter(self.finder, self.remover, first, replicas, everywhere)
        self.mover = Mover(self.finder, self.reader, self.remover, scratch)
        self._ack = 1 + len(replicas) if ack is None else ack
        self.owing = owing
        self._uses: dict[str, tuple[int, float]] = {}
        self._noted = time.monotonic()
        self._owing = False
        self._holdings: Mapping[str, Holdings] = {}
        self._last_error: BackendError = Unreachable("no tier answers")
        deadline = max(tier.backend.retry.deadline for tier in tiers)
        self.outage = Outage(self._identity, self._probe, RetryPolicy(deadline=deadline))
        own = first.backend.capabilities
        self.capabilities = replace(
            own, list_metadata=False, flat_list=False, markers=True, directories=False, server_copy=True, conditional_delete=True,
            cached=any(tier.backend.capabilities.cached for tier in tiers),
        )  # fmt: skip
        self.put_limit, self.part_size = first.backend.put_limit, first.backend.part_size
        for tier in tiers:
            tier.backend.uploads = _UploadsOf(self, tier.name)
            tier.backend.outage.on_return(self._tier_returned)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def entry(self) -> Tier:
        """Where new objects come to lie."""
        return self.writer.entry

    async def check(self, prefix: str = "") -> None:
        answers = await asyncio.gather(
            *(tier.backend.check(tier.key(prefix)) for tier in self.tiers.values()), return_exceptions=True
        )
        failures = [answer for answer in answers if answer is not None]
        for failure in failures:
            if not isinstance(failure, BackendError) or not failure.temporary:
                raise failure
        if len(failures) == len(self.tiers):
            raise failures[0]

    async def _probe(self) -> None:
        """One tier that answers is enough."""
        failures: list[BaseException] = []
        for tier in self.tiers.values():
            try:
                await tier.backend._check(tier.root)  # noqa: SLF001 - a probe makes one attempt, as the tier's own
            except FsdriverError as error:
                failures.append(error)
            else:
                return
        raise failures[0]

    def _tier_returned(self) -> None:
        self.outage.tell_return()
        self.owing()

    def _failed(self, error: BackendError) -> None:
        if is_away(error):
            self.outage.suspect()

    # -- reading -------------------------------------------------------------------------------------------------------

    async def head(self, key: str) -> ObjectInfo:
        self.counters.count("head")
        try:
            info, record = await self.reader.head(key, self.entry)
        except BackendError as error:
            self._failed(error)
            raise
        return _told(record, info)

    async def get(self, key: str, start: int = 0, end: int | None = None, version: str | None = None) -> memoryview:
        self.counters.count("get")
        try:
            data = await self.reader.get(key, start, end, version)
        except BackendError as error:
            self._failed(error)
            raise
        self.counters.bytes_read += len(data)
        return data

    async def fetch(self, key: str, most: int) -> tuple[ObjectInfo, memoryview]:
        self.counters.count("get")
        try:
            info, data, record = await self.reader.fetch(key, most)
        except BackendError as error:
            self._failed(error)
            raise
        self.counters.bytes_read += len(data)
        return _told(record, info), data

    async def list(self, prefix: str, *, delimiter: bool = True, start_after: str = "") -> AsyncIterator[Page]:
        self.counters.count("list")
        try:
            objects, prefixes = await self.finder.list(prefix, delimiter=delimiter, start_after=start_after)
        except BackendError as error:
            self._failed(error)
            raise
        entries: list[tuple[str, ObjectInfo | None]] = [(key, _told(record)) for key, record in objects]
        entries += [(key, None) for key in prefixes]
        entries.sort(key=lambda one: one[0])
        for at in range(0, len(entries), PAGE):
            some = entries[at : at + PAGE]
            yield Page([info for _, info in some if info is not None], [key for key, info in some if info is None])

    def used(self, key: str) -> None:
        """Somebody opened an object; noted in the catalog with others, a little later. From any thread."""
        count, _ = self._uses.get(key, (0, 0.0))
        self._uses[key] = count + 1, time.time()

    async def note_uses(self, *, at_once: bool = False) -> None:
        """Write down what was used, if that is worth a transaction by now."""
        now = time.monotonic()
        if self._uses and (at_once or len(self._uses) >= USES_KEPT or now - self._noted >= USES_SECONDS):
            uses, self._uses, self._noted = self._uses, {}, now
            await self.catalog.note_uses(self._identity, uses)

    # -- writing -------------------------------------------------------------------------------------------------------

    async def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        if_version: str | None = None,
        content_type: str | None = None,
        doubtful: bool = False,
    ) -> ObjectInfo:
        self.counters.count("put")
        info, written = await self.writer.put(key, source, metadata, if_version, content_type, doubtful=doubtful)
        self.counters.bytes_written += info.size
        self.used(key)
        await self._replicate(written)
        return _told(written.record, info)

    async def _replicate(self, written: Written) -> None:
        """Make as many copies as have to be there before a write counts; the others follow."""
        wanted, moves = self._ack - len(written.record.holders()), [*written.owed]
        if written.record.key.startswith(self.writer.everywhere):
            wanted = 0
        now, later = moves[: max(0, wanted)], moves[max(0, wanted) :]
        made = sum(await asyncio.gather(*(self.mover.carry_out(move) for move in now)))
        while made < wanted and later:
            made += await self.mover.carry_out(later.pop(0))
        if later or made < len(now):
            self.owing()
        if made < wanted:
            raise Unreachable(
                f"{made + 1} of {wanted + 1} tiers have it that must before it counts as stored; the others are tried again",
                written.record.key,
            )

    def stops_when_cancelled(self, size: int) -> bool:
        return self.entry.backend.stops_when_cancelled(size)

    async def abort_multipart(self, key: str, handle: str) -> None:
        name, _, own = handle.partition("|")
        tier = self.tiers.get(name)
        if tier is not None:
            await tier.backend.abort_multipart(tier.key(key), own)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_version: str | None = None,
        if_version: str | None = None,
        metadata: Mapping[str, str] | None = None,
        size: int | None = None,
        doubtful: bool = False,
    ) -> ObjectInfo:
        self.counters.count("copy")
        info, written = await self.writer.copy(
            source, target, source_version=source_version, if_version=if_version, metadata=metadata, doubtful=doubtful
        )
        await self._replicate(written)
        return _told(written.record, info)

    async def delete(self, key: str, *, if_version: str | None = None) -> None:
        self.counters.count("delete")
        await self.writer.delete(key, if_version)

    async def delete_many(self, keys: Sequence[str]) -> None:
        failures: list[BaseException] = []
        rest = iter(keys)

        async def worker() -> None:
            for key in rest:
                try:
                    await self.delete(key)
                except FsdriverError as error:
                    failures.append(error)

        await asyncio.gather(*(worker() for _ in range(DELETES_AT_ONCE)))
        if failures:
            raise failures[0]

    # -- tiers ---------------------------------------------------------------------------------------------------------

    async def move(self, key: str, target: str, *, keep: bool = False, pin: bool = False) -> Record:
        """Have a verified copy of an object in a tier, and let go of those in others, but replicas.

        Parameters
        ----------
        target : str
            Name of a tier.
        keep : bool
            Leave the other copies where they are.
        pin : bool
            No rule moves it away from there; False undoes that.

        Returns
        -------
        Record
            As it is now.

        Raises
        ------
        Unsupported
            There is no such tier, or it is only read.
        NotFound, Stale
            There is no such object; it was changed meanwhile.
        BackendError
            It cannot be copied now; if it is worth another try, it stays owed.
        """
        if target not in self.tiers:
            raise Unsupported(f"there is no tier {target!r}; this route has {', '.join(self.tiers)}", key)
        record = await self.finder.record(key)
        while record is not None and record.pin != (wanted := target if pin else None):
            await self.catalog.swap(self._identity, replace(record, pin=wanted), record.serial)
            record = await self.finder.record(key)
        if record is None:
            raise NotFound("no such object", key)
        stay = {target, *self.writer.replicas(key)}
        leaves = () if keep else tuple(name for name in record.holders() if name not in stay)
        done = await self.mover.insist(Move(key, record.version, target, leaves, "command", record.size))
        now = await self.catalog.get(self._identity, key)
        if not done or now is None:
            raise Stale("it was changed by someone else meanwhile; try again", key)
        return now

    async def wanted(self, now: float) -> AsyncGenerator[Move]:
        """The moves that the policy wants now (`time.time`); what describes the tree stays where it is: everywhere."""
        if self.policy is not None:
            async with aclosing(sweep(self.catalog, self._identity, self.policy, now)) as moves:
                async for move in moves:
                    if not move.key.endswith("/") and not move.key.startswith(self.writer.everywhere):
                        yield move

    async def take_stock(self) -> None:
        """Ask the catalog what each tier holds, for `status`."""
        self._holdings = await self.catalog.holdings(self._identity)

    async def owes(self) -> bool:
        """Whether any copy, or the removal of one, is owed to a tier; remembered for `status`."""
        moves, removals = self.catalog.moves(self._identity), self.catalog.owing_removals(self._identity)
        async with aclosing(moves), aclosing(removals):
            self._owing = await anext(moves, None) is not None or await anext(removals, None) is not None
        return self._owing

    def status(self) -> dict[str, Any]:
        """For ``status``: each tier with what it held when stock was taken, and what was read, moved and found."""
        nothing = Holdings(0, 0)
        return {
            "tiers": [
                {"name": tier.name, "store": tier.backend.identity, "prefix": tier.prefix, "reachable": tier.reachable}
                | asdict(self._holdings.get(tier.name, nothing))
                | {"reads": self.reader.reads.by_tier.get(tier.name, 0)}
                for tier in self.tiers.values()
            ],
            "owes": self._owing,
            "fallbacks": self.reader.reads.fallbacks,
            "corrupt": self.reader.reads.corrupt,
            "moves": asdict(self.mover.moves),
            "found": asdict(self.finder.findings),
        }

    async def sign(self, key: str, expires: int) -> str:
        record = await self.finder.record(key)
        for tier, _ in good(record, self.tiers) if record is not None else ():
            return await tier.backend.sign(tier.key(key), expires)
        return await super().sign(key, expires)

    async def has_digest(self, key: str, version: str, md5: str) -> bool | None:
        record = await self.catalog.get(self._identity, key)
        if record is None or record.version != version:
            return None
        for tier, copy in good(record, self.tiers):
            return await tier.backend.has_digest(tier.key(key), copy.version, md5)
        return None

    async def close(self) -> None:
        await self.note_uses(at_once=True)
        self.outage.close()
        for tier in self.tiers.values():
            await tier.backend.close()


class _UploadsOf:
    """Uploads in parts of one tier, in the words of the stack."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._stack = stack
        self._name = name

    def begun(self, key: str, handle: str) -> None:
        if self._stack.uploads is not None:
            self._stack.uploads.begun(self._stack.tiers[self._name].own(key), f"{self._name}|{handle}")

    def ended(self, key: str, handle: str) -> None:
        if self._stack.uploads is not None:
            self._stack.uploads.ended(self._stack.tiers[self._name].own(key), f"{self._name}|{handle}")

    def living(self, key: str) -> Collection[str]:
        if self._stack.uploads is None:
            return ()
        known = self._stack.uploads.living(self._stack.tiers[self._name].own(key))
        mine = f"{self._name}|"
        return [handle.removeprefix(mine) for handle in known if handle.startswith(mine)]


def _told(record: Record, info: ObjectInfo | None = None) -> ObjectInfo:
    """An object of the stack as its tier told it, or as the catalog knows it."""
    metadata = None if info is None else without_marks(info.metadata)
    return ObjectInfo(record.key, record.size, record.mtime_ns, record.version, metadata)


def _check_tiers(tiers: Sequence[Tier], first: Tier) -> None:
    if not first.writable:
        raise ConfigError(f"tier {first.name} is only read: new files cannot enter there", first.backend.identity)
    places = [(tier.backend.identity, tier.root) for tier in tiers]
    for at, (store, root) in enumerate(places):
        for other, above in places[:at]:
            if store == other and (root.startswith(above) or above.startswith(root)):
                raise ConfigError(f"two tiers of one route lie in one place: {tiers[at].name}", f"{store}/{root}")
