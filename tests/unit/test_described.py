"""Which directories have attribute objects: asked for once, right for all processes of a host, and not for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from fsdriver.cache import Epochs
from fsdriver.metadata.described import Described


class Store:
    """A store with some attribute objects; counts how often it is asked."""

    def __init__(self) -> None:
        self.names: set[str] | None = set()
        self.asked = 0
        self.now = 1000.0
        self.meanwhile = lambda: None

    async def fetch(self) -> Collection[str] | None:
        self.asked += 1
        found = None if self.names is None else set(self.names)
        self.meanwhile()
        return found


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make(store: Store, tmp_path: Path):
    def one(ttl: float = 10.0) -> Described:
        return Described(store.fetch, Epochs(tmp_path / "epochs"), "store|meta", ttl, lambda: store.now)

    return one


def load(*all_of_them: Described) -> None:
    for one in all_of_them:
        asyncio.run(one.load())


def test_it_is_asked_once_for_half_the_time_to_live(make, store):
    one = make()
    assert not one.lacks("d")
    store.names = {"d"}
    load(one, one)
    assert store.asked == 1
    assert (one.lacks("d"), one.lacks("e"), one.lacks("")) == (False, True, True)
    store.now += 6
    assert not one.lacks("e")
    load(one)
    assert store.asked == 2
    assert one.asked == store.now


def test_too_many_are_not_known_and_not_asked_for_again(make, store):
    one = make()
    store.names = None
    load(one, one)
    assert not one.lacks("e")
    assert store.asked == 1


def test_another_process_learns_of_a_new_one(make, store):
    one, other = make(), make()
    load(one, other)
    one.created("d")
    assert not one.lacks("d")
    assert one.lacks("e")
    assert not other.lacks("d")
    assert not other.lacks("e")
    store.names = {"d"}
    load(other)
    assert other.lacks("e")
    assert not other.lacks("d")


def test_an_answer_that_is_older_than_a_change_is_not_used(make, store):
    one, other = make(), make()
    load(other)

    def create() -> None:
        store.meanwhile = lambda: None
        store.names = {"d"}
        other.created("d")

    store.meanwhile = create
    load(one)
    assert not one.lacks("d")
    assert one.lacks("e")


def test_forgetting_ends_what_is_known_and_what_is_under_way(make, store):
    one = make()

    def forget() -> None:
        store.meanwhile = lambda: None
        store.names = {"d"}
        one.forget()

    store.meanwhile = forget
    load(one)
    assert not one.lacks("d")
    one.forget()
    assert not one.lacks("e")


def test_without_a_time_to_live_nothing_is_known(make, store):
    one = make(0.0)
    load(one)
    assert store.asked == 0
    assert not one.lacks("e")
