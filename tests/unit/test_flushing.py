"""When attribute objects are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsdriver.errors import Unreachable
from fsdriver.writeback import flushing
from fsdriver.writeback.flushing import Flusher
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.outgoing import UploadCounters
from fsdriver.writeback.pending import AttributeChange
from fsdriver.writeback.waiting import Waiters


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Broken:
    """A route whose store takes no attribute object."""

    lazy = False
    marked: dict[str, float] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.attempts = 0

    def directory_key(self, path: str) -> str:
        return f"{path}/"

    async def flush_attributes(self, _directory: str, *, mark: bool) -> None:
        self.attempts += 1
        raise Unreachable("the store does not answer", "d")


def test_what_fails_is_tried_again_at_growing_intervals_and_at_once_for_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, route, counters = Clock(), Broken(), UploadCounters()
    tasks: set[asyncio.Task[None]] = set()
    monkeypatch.setattr(flushing, "time", clock)
    monkeypatch.setattr(flushing, "RETRY", replace(flushing.RETRY, random=lambda: 1.0))
    journal = Journal(tmp_path / "catalog.db")
    journal.attributes.write([AttributeChange("store", "", "d", "name", {"mode": 0o600})])

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        tasks.add(asyncio.get_running_loop().create_task(work))

    flusher = Flusher("store", journal, {"": route}, lambda _: route, Waiters(counters), spawn)  # type: ignore[dict-item]

    async def look_for(seconds: int) -> int:
        before = route.attempts
        for _ in range(10 * seconds):
            flusher.look(sending=False, draining=True)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            clock.now += 0.1
        return route.attempts - before

    async def scenario() -> list[int]:
        attempts = [await look_for(seconds) for seconds in (10, 100, 600)]
        flusher.urge("", "d")
        await asyncio.gather(*tasks)
        return [*attempts, route.attempts]

    ten, hundred, more, at_last = asyncio.run(scenario())
    journal.close()
    assert 3 <= ten <= 5
    assert hundred <= 5
    assert 8 <= more <= 11
    assert at_last == ten + hundred + more + 1
    assert counters.failures == at_last
    assert "the store does not answer" in counters.last_error
