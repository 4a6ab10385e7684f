"""Finding out that a store is out of reach, and that it is back."""

from __future__ import annotations

import asyncio

import pytest

from fsdriver.backends.outage import Outage
from fsdriver.backends.retry import RetryPolicy
from fsdriver.errors import AccessDenied, BackendError, ContainerMissing, Throttled, Unreachable
from fsdriver.metadata.offline import ask_or_recall


class Store:
    """Fails as told, one failure a probe; None: it answers."""

    def __init__(self, *failures: BackendError | None) -> None:
        self.failures = list(failures)
        self.waits: list[float] = []
        self.returns = 0
        self.is_back = asyncio.Event()
        self.outage = Outage("store", self.probe, RetryPolicy(sleep=self.sleep, random=lambda: 1.0))
        self.outage.on_return(self.returned)

    async def probe(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    def returned(self) -> None:
        self.returns += 1
        self.is_back.set()

    async def until_known(self) -> None:
        assert self.outage._watch is not None
        await asyncio.gather(self.outage._watch, return_exceptions=True)


@pytest.mark.parametrize("failure", [None, AccessDenied("no")])
def test_a_store_that_answers_is_not_out_of_reach(failure: BackendError | None) -> None:
    async def scenario() -> None:
        store = Store(failure)
        store.outage.suspect()
        await store.until_known()
        assert not store.outage.active
        assert (store.outage.count, store.returns, store.waits) == (0, 0, [])

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [Unreachable("gone"), Throttled("calm"), ContainerMissing("gone")])
def test_it_is_asked_until_it_answers(failure: BackendError) -> None:
    async def scenario() -> None:
        store = Store(*[failure] * 9)
        store.outage.suspect()
        await store.outage.began()
        assert store.outage.active
        assert store.outage.since
        store.outage.suspect()  # it is being watched already
        await store.until_known()
        assert not store.outage.active
        assert (store.outage.count, store.returns) == (1, 1)
        assert store.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]

    asyncio.run(scenario())


def test_any_answer_ends_it() -> None:
    async def scenario() -> None:
        store = Store(*[Unreachable("gone")] * 10**6)
        store.outage.suspect()
        await store.outage.began()
        await asyncio.to_thread(store.outage.answered)
        assert not store.outage.active
        await store.is_back.wait()
        await store.until_known()
        store.outage.suspect()
        await store.outage.began()
        assert store.outage.count == 2
        store.outage.close()

    asyncio.run(scenario())


def test_what_was_known_is_told_only_while_the_store_is_out_of_reach() -> None:
    async def says(what: str | BackendError) -> str:
        if isinstance(what, BackendError):
            raise what
        return what

    async def hangs() -> str:
        await asyncio.Event().wait()
        return "never"

    async def scenario() -> None:
        store = Store(*[Unreachable("gone")] * 10**6)
        assert await ask_or_recall(store.outage, says("now"), lambda: "before") == "now"
        assert await ask_or_recall(store.outage, says(Unreachable("gone")), lambda: "before") == "before"
        with pytest.raises(AccessDenied):
            await ask_or_recall(store.outage, says(AccessDenied("no")), lambda: "before")
        store.outage.suspect()
        assert await ask_or_recall(store.outage, hangs(), lambda: "before") == "before"
        assert store.outage.active
        assert await ask_or_recall(store.outage, says("now"), lambda: "before") == "before"
        store.outage.close()

    asyncio.run(scenario())
