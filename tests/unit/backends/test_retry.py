"""Retry policy and the calls it governs, with a clock and a sleep of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from fsdriver.backends.calls import Calls
from fsdriver.backends.retry import RetryPolicy
from fsdriver.errors import BackendError, NotFound, Stale, Throttled, TimedOut, Unreachable


class Time:
    def __init__(self):
        self.now = 0.0
        self.waits = []

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


def calls(time, **changes):
    policy = RetryPolicy(clock=time.clock, sleep=time.sleep, random=lambda: 1.0, **changes)
    return Calls("s3", "http://somewhere", "bucket", policy)


def failing(*errors, result="done"):
    remaining = list(errors)

    async def attempt():
        if remaining:
            raise remaining.pop(0)
        return result

    return attempt


@pytest.mark.feature("S1-14")
def test_waits_double_up_to_the_cap(time):
    backend = calls(time, attempts=6, cap=0.5)
    errors = [Unreachable("no", "k") for _ in range(5)]
    assert asyncio.run(backend._call("get", "k", failing(*errors))) == "done"
    assert time.waits == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert (backend.counters.retries, backend.counters.requests["get"], backend.counters.errors) == (5, 6, 0)


def test_jitter_is_full():
    policy = RetryPolicy(random=lambda: 0.25)
    assert policy.delay(3) == pytest.approx(0.1)
    assert policy.delay(3, retry_after=2.0) == 2.0


def test_attempts_are_bounded(time):
    backend = calls(time, attempts=2)
    with pytest.raises(Throttled):
        asyncio.run(backend._call("get", "k", failing(*(Throttled("slow", "k") for _ in range(9)))))
    assert backend.counters.requests["get"] == 2
    assert backend.counters.errors == 1


@pytest.mark.parametrize("error", [NotFound("no", "k"), Stale("lost", "k"), BackendError("bad", "k")])
def test_only_temporary_failures_are_tried_again(time, error):
    backend = calls(time)
    with pytest.raises(type(error)):
        asyncio.run(backend._call("get", "k", failing(error)))
    assert time.waits == []


def test_what_the_store_asks_for_is_waited(time):
    error = Throttled("slow", "k")
    error.retry_after = 7.0
    asyncio.run(calls(time)._call("get", "k", failing(error)))
    assert time.waits == [7.0]


def test_no_attempt_begins_after_the_deadline(time):
    error = Throttled("slow", "k")
    error.retry_after = 31.0
    with pytest.raises(Throttled):
        asyncio.run(calls(time, deadline=30.0)._call("get", "k", failing(error)))
    assert time.waits == []


def test_the_deadline_names_key_endpoint_and_setting(time):
    backend = calls(time, deadline=0.01)

    async def hang():
        await asyncio.Event().wait()

    with pytest.raises(TimedOut) as caught:
        asyncio.run(backend._call("get", "some/key", hang))
    for part in ("some/key", "http://somewhere", "timeout"):
        assert part in str(caught.value)


def test_bytes_extend_the_deadline():
    assert RetryPolicy(deadline=30.0).limit(64 << 20) == 94.0


def test_a_lost_condition_after_silence_is_looked_into(time):
    async def ours():
        return "ours"

    async def theirs():
        return None

    lost = (Unreachable("cut", "k"), Stale("lost", "k"))
    assert asyncio.run(calls(time)._call_write("put", "k", failing(*lost), ours)) == "ours"
    with pytest.raises(Stale):
        asyncio.run(calls(time)._call_write("put", "k", failing(*lost), theirs))
    with pytest.raises(Stale):
        asyncio.run(calls(time)._call_write("put", "k", failing(Stale("lost", "k")), ours))
