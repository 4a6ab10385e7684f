"""Patterns of access to objects of different sizes: what hit ratios of cache policies are compared on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Final

OBJECTS: Final = 2000
ACCESSES: Final = 30_000
SEED: Final = 20


def sizes(count: int = OBJECTS) -> list[int]:
    """Bytes of each object: log-normal, 8 KiB in the middle, as files of source trees and data sets are."""
    chance = random.Random(SEED)
    return [int(chance.lognormvariate(9, 1)) for _ in range(count)]


def zipf(count: int, accesses: int) -> Iterator[int]:
    """The object of rank r is asked for in proportion to 1/r^0.9: pages of the web, keys of a database."""
    weights = list(accumulate(1 / (rank + 1) ** 0.9 for rank in range(count)))
    yield from random.Random(SEED).choices(range(count), cum_weights=weights, k=accesses)


def loop(count: int, accesses: int) -> Iterator[int]:
    """All objects in the same order, again and again: a job that is repeated over a directory."""
    for number in range(accesses):
        yield number % count


def scan(count: int, accesses: int) -> Iterator[int]:
    """Three of four accesses go to a tenth of the objects, one to the next of all others: a backup beside a service."""
    chance, hot = random.Random(SEED), count // 10
    cold = 0
    for _ in range(accesses):
        if chance.random() < 0.75:
            yield chance.randrange(hot)
        else:
            yield hot + cold % (count - hot)
            cold += 1


def epochs(count: int, accesses: int) -> Iterator[int]:
    """Every object once an epoch, each in a new order: training."""
    chance, order = random.Random(SEED), list(range(count))
    for number in range(accesses):
        if number % count == 0:
            chance.shuffle(order)
        yield order[number % count]


def moving(count: int, accesses: int) -> Iterator[int]:
    """A tenth of the objects is hot, and five times another tenth: working on one project after the other."""
    chance, hot = random.Random(SEED), count // 10
    for number in range(accesses):
        yield hot * (5 * number // accesses) + chance.randrange(hot)


PATTERNS: Final[Mapping[str, Callable[[int, int], Iterator[int]]]] = MappingProxyType(
    {"zipf": zipf, "loop": loop, "scan over a hot set": scan, "shuffled epochs": epochs, "moving hot set": moving}
)
