"""Measuring: what a figure is, how its pairs are run, and what is kept of them.

A figure compares two ways to do the same work, ours and the reference, on the same machine in the same minutes. They
are run in turn (A B A B …), because the speed of a shared machine drifts over minutes; each pair gives one ratio, and
the median of the ratios is the figure. Nothing here fails: a figure below its goal is reported as such.
"""

from __future__ import annotations

import importlib
import pkgutil
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self, TypeAlias

from benchmarks.environment import Environment

PAIRS: Final = 5

Measure: TypeAlias = Callable[[], float]
"""One run of the work; returns its value in the unit of the figure."""


@dataclass(slots=True)
class Pair:
    """What a figure hands to the harness.

    Attributes
    ----------
    ours : Measure
    reference : Measure or None
        None for a figure that stands alone (memory).
    prepare : callable, optional
        Called before every run, outside the clock of the runs (they keep their own).
    warm_up : bool
        Run both once before the pairs. False where every run is cold.
    facts : dict
        What else is worth keeping: requests, memory, CPU. The figure fills it while it runs.
    """

    ours: Measure
    reference: Measure | None = None
    prepare: Callable[[], None] | None = None
    warm_up: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach.

    Attributes
    ----------
    limit : float
    of : {"ratio", "value"}
        Of the median ratio, or of the median of our own values.
    at_most : bool
        The limit is an upper one.
    """

    limit: float
    of: Literal["ratio", "value"] = "ratio"
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


Make: TypeAlias = Callable[[Environment], AbstractContextManager[Pair]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A registered figure; see `figure`."""

    name: str
    title: str
    unit: str
    against: str
    goal: Goal | None
    higher_is_better: bool
    make: Make


@dataclass(slots=True)
class Result:
    """Values of all pairs of one figure, in the order they were taken.

    ``ratios`` are ours to the reference's, turned over where less is better: more than 1 always means that ours is
    better.
    """

    name: str
    title: str
    unit: str
    against: str
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    goal: Goal | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @property
    def judged(self) -> float | None:
        """The number the goal is about."""
        values = self.ours if self.goal and self.goal.of == "value" else self.ratios
        return statistics.median(values) if values else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        return None if self.goal is None or self.judged is None else self.goal.met(self.judged)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The opposite of `as_json`."""
        fields = {name: value for name, value in data.items() if name != "met"}
        return cls(**fields | {"goal": Goal(**data["goal"]) if data["goal"] else None})


_figures: dict[str, Figure] = {}


def figure(
    name: str, title: str, *, unit: str, against: str = "", goal: Goal | None = None, higher_is_better: bool = True
) -> Callable[[Make], Make]:
    """Register a figure: a context manager that sets up, yields a `Pair`, and cleans up.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    title, against : str
        The work, and what it is compared with, as the table says it.
    unit : str
    goal : Goal, optional
    higher_is_better : bool
        False for seconds and memory.
    """

    def register(make: Make) -> Make:
        if name in _figures:
            raise ValueError(f"two figures are called {name}")
        _figures[name] = Figure(name, title, unit, against, goal, higher_is_better, make)
        return make

    return register


def figures() -> Mapping[str, Figure]:
    """All figures, in the order of their files' names."""
    package = importlib.import_module("benchmarks.figures")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        importlib.import_module(f"benchmarks.figures.{module.name}")
    return _figures


def measure(one: Figure, environment: Environment, pairs: int = PAIRS) -> Result:
    """Run a figure; what goes wrong is in `Result.error`."""
    result = Result(one.name, one.title, one.unit, one.against, goal=one.goal)
    began = time.monotonic()
    try:
        with one.make(environment) as pair:
            for ours, reference in _runs(pair, pairs):
                result.ours.append(ours)
                if reference is not None:
                    result.reference.append(reference)
                    result.ratios.append(ours / reference if one.higher_is_better else reference / ours)
            result.facts = pair.facts
    except Exception as error:  # noqa: BLE001 - one figure that cannot be measured must not hide the others
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {error}"
    result.seconds = time.monotonic() - began
    return result


def _runs(pair: Pair, pairs: int) -> Iterator[tuple[float, float | None]]:
    def once(run: Measure) -> float:
        if pair.prepare is not None:
            pair.prepare()
        return run()

    if pair.warm_up:
        once(pair.ours)
        if pair.reference is not None:
            once(pair.reference)
    for _ in range(pairs):
        yield once(pair.ours), None if pair.reference is None else once(pair.reference)
