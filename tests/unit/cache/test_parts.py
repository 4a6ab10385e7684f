"""Small parts: block map, read-ahead, memory bounds, TTL maps, epochs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.cache import BLOCK, Epochs, TTLCache
from fsdriver.cache.blocks import COMING, GRAIN, MISSING, PRESENT, BlockMap
from fsdriver.cache.memory import Budget, Kept
from fsdriver.cache.readahead import LARGEST_REQUEST, LARGEST_WINDOW, Plan, ReadAhead

MIB = 1 << 20


# -- blocks ----------------------------------------------------------------------------------------------------------

SPANS = st.lists(
    st.tuples(st.integers(0, 40 * GRAIN), st.integers(0, 40 * GRAIN), st.sampled_from([0, 1, 2])), max_size=20
)


@given(st.integers(1, 40 * GRAIN), SPANS, st.integers(0, 40 * GRAIN), st.integers(0, 40 * GRAIN), st.integers(1, 9))
def test_missing_ranges_cover_exactly_the_missing_blocks(
    size: int, spans: list[tuple[int, int, int]], start: int, end: int, largest: int
) -> None:
    blocks = BlockMap(size)
    model = [MISSING] * -(-size // GRAIN)
    for one, other, state in spans:
        low, high = min(one, size), min(other, size)
        if low < high:
            blocks.mark(low, high, state)
            for block in range(low // GRAIN, -(-high // GRAIN)):
                model[block] = state
    assert blocks.present == model.count(PRESENT)
    assert blocks.complete == (model.count(PRESENT) == len(model))
    start, end = min(start, size), min(end, size)
    covered = []
    for first, last in blocks.missing(start, end, largest * GRAIN):
        assert first % GRAIN == 0
        assert last % GRAIN == 0 or last == size
        assert 0 < last - first <= largest * GRAIN
        assert first // (largest * GRAIN) == (last - 1) // (largest * GRAIN)
        covered += range(first // GRAIN, -(-last // GRAIN))
    touched = range(start // GRAIN, -(-end // GRAIN)) if start < end else range(0)
    assert covered == [block for block in touched if model[block] == MISSING]
    if start < end:
        assert blocks.has(start, end) == all(model[block] == PRESENT for block in touched)
        assert blocks.state(start) == model[start // GRAIN]
        if model[start // GRAIN] == PRESENT:
            absent = [block * GRAIN for block in touched if model[block] != PRESENT]
            assert blocks.present_until(start, end) == min([end, *absent])


def test_adjacent_missing_blocks_are_one_range() -> None:
    blocks = BlockMap(10 * GRAIN)
    blocks.mark(4 * GRAIN, 5 * GRAIN, COMING)
    assert list(blocks.missing(1, 10 * GRAIN, 8 * MIB)) == [(0, 4 * GRAIN), (5 * GRAIN, 10 * GRAIN)]


# -- read-ahead ------------------------------------------------------------------------------------------------------


def test_a_stream_grows_its_window_and_requests() -> None:
    ahead = ReadAhead(1 << 30)
    assert ahead.observe(0, BLOCK) is None
    assert ahead.observe(BLOCK, 2 * BLOCK) == Plan(2 * BLOCK, 2 * BLOCK + MIB, MIB)
    position = 2 * BLOCK
    plans = []
    while position < 32 * MIB:
        plans.append(ahead.observe(position, position + BLOCK))
        position += BLOCK
    windows = [plan.end - plan.start for plan in plans if plan]
    assert windows == sorted(windows)
    assert windows[-1] == LARGEST_WINDOW
    assert plans[-1] == Plan(position, position + LARGEST_WINDOW, LARGEST_REQUEST)


def test_a_short_stream_fetches_no_more_ahead_than_it_has_read() -> None:
    """Columns of a parquet file: each is read in order, and then another one far away."""
    ahead = ReadAhead(1 << 30)
    for start in range(0, 1 << 30, 50 * MIB):
        for step in range(3):
            plan = ahead.observe(start + step * MIB, start + (step + 1) * MIB)
            if step == 0:
                assert plan is None
            else:
                assert plan == Plan(start + (step + 1) * MIB, start + 2 * (step + 1) * MIB, MIB)


def test_random_reads_make_no_plan() -> None:
    ahead = ReadAhead(1 << 30)
    assert [ahead.observe(offset * MIB, offset * MIB + BLOCK) for offset in (5, 900, 3, 77, 5, 901)] == [None] * 6


def test_interleaved_streams_are_told_apart() -> None:
    ahead = ReadAhead(1 << 30)
    starts = [0, 100 * MIB, 300 * MIB]
    for start in starts:
        assert ahead.observe(start, start + BLOCK) is None
    for start in starts:
        plan = ahead.observe(start + BLOCK, start + 2 * BLOCK)
        assert plan is not None
        assert plan.start == start + 2 * BLOCK


def test_an_established_stream_tolerates_disorder() -> None:
    ahead = ReadAhead(1 << 30)
    for offset in range(0, 2 * MIB, BLOCK):
        ahead.observe(offset, offset + BLOCK)
    late = ahead.observe(2 * MIB + 3 * BLOCK, 2 * MIB + 4 * BLOCK)
    early = ahead.observe(2 * MIB, 2 * MIB + BLOCK)
    assert late is not None
    assert early is not None
    assert early.start == 2 * MIB + 4 * BLOCK


def test_plans_end_with_the_file() -> None:
    ahead = ReadAhead(3 * BLOCK + 5)
    ahead.observe(0, BLOCK)
    assert ahead.observe(BLOCK, 2 * BLOCK) == Plan(2 * BLOCK, 3 * BLOCK + 5, MIB)


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_budget_is_given_in_order_and_survives_cancellation() -> None:
    async def scenario() -> list[str]:
        budget = Budget(10)
        order: list[str] = []

        async def take(name: str, size: int) -> None:
            await budget.acquire(size)
            order.append(name)

        await take("first", 8)
        tasks = {name: asyncio.create_task(take(name, size)) for name, size in (("big", 9), ("gone", 2), ("small", 1))}
        await asyncio.sleep(0)
        assert not budget.free(1), "no overtaking"
        tasks["gone"].cancel()
        budget.release(8)
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert budget.used == 10
        budget.release(10)
        await take("over the limit", 50)
        budget.release(50)
        assert budget.used == 0
        return order

    assert asyncio.run(scenario()) == ["first", "big", "small", "over the limit"]


def test_kept_buffers_drop_the_oldest() -> None:
    dropped: list[str] = []
    kept = Kept(10)
    for name in ("a", "b", "c"):
        kept.keep(name, 4, lambda name=name: dropped.append(name))  # type: ignore[misc]
    assert dropped == ["a"]
    kept.forget("b")
    kept.forget("b")
    assert kept.used == 4
    kept.keep("huge", 50, lambda: dropped.append("huge"))
    assert dropped == ["a", "c"]


# -- metadata --------------------------------------------------------------------------------------------------------


def test_entries_expire() -> None:
    now = [0.0]
    cache: TTLCache[int] = TTLCache(100, 10, clock=lambda: now[0])
    cache.put("a", 1)
    cache.put("b", 2, ttl=1)
    cache.put("c", 3, ttl=0)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, 2, None)
    now[0] = 5
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)
    now[0] = 11
    assert cache.get("a") is None


def test_entries_are_bounded_and_removed() -> None:
    cache: TTLCache[int] = TTLCache(3, 10)
    for number, key in enumerate(("d/a", "d/b", "e", "f")):
        cache.put(key, number)
    assert len(cache) == 3
    assert cache.get("d/a") is None
    assert cache.pop("e") == 2
    assert cache.pop("e") is None
    cache.clear()
    assert len(cache) == 0


def test_threads_share_a_ttl_cache() -> None:
    cache: TTLCache[int] = TTLCache(50, 10)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(2000):
                cache.put(f"{index % 80}", number)
                cache.get(f"{index % 70}")
                if index % 500 == 0:
                    cache.clear()
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(cache) <= 50


def test_epochs_cross_processes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "epochs"
    epochs = Epochs(path)
    before = epochs.value("dir"), epochs.value("other")
    code = (
        "import sys; from pathlib import Path; from fsdriver.cache import Epochs; Epochs(Path(sys.argv[1])).bump('dir')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert epochs.value("dir") != before[0]
    assert epochs.value("other") == before[1]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 65536 * 8
    epochs.close()


def test_epochs_survive_fork_and_never_repeat(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path / "epochs", slots=8)
    seen = {epochs.value("d\udcff")}
    for number in range(200):
        child = os.fork() if number % 100 == 50 else -1
        if child == 0:
            epochs.bump("d\udcff")
            os._exit(0)
        if child > 0:
            os.waitpid(child, 0)
        else:
            epochs.bump("d\udcff")
        seen.add(epochs.value("d\udcff"))
    assert len(seen) == 201
    epochs.close()


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_an_empty_map_is_complete_only_for_an_empty_file(size: int) -> None:
    assert BlockMap(size).complete == (size == 0)
