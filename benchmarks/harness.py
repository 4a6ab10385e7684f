"""Measuring: what a workload is, how its sides are run in turn, and what is kept of them.

A workload is the same work done in several ways, its *sides*: ``native`` on a plain directory of the same disk, ``direct``
by a client of the store without a file system, and through mounts. All sides run in turn, round after round (A B C A B C …),
because the speed of a shared machine drifts over minutes; each round gives one ratio, and the median of the ratios is the
figure. Nothing here fails but a wrong byte: a figure below its goal is reported as such.
"""

from __future__ import annotations

import importlib
import pkgutil
import statistics
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self, TypeAlias

from benchmarks.environment import Environment, WrongContent

ROUNDS: Final = 5

Values: TypeAlias = Mapping[str, float]
"""What one run of a side measured, by unit."""

Run: TypeAlias = Callable[[], Values]


@dataclass(slots=True)
class Sides:
    """What a workload hands to the harness.

    Attributes
    ----------
    runs : dict
        One run of the work, by the name of the side. Only those that chosen figures need are called.
    warm_up : bool
        Run each once before the rounds. False where every run is cold.
    facts : dict
        Counts by side: requests, bytes, processor time. The runs fill it; the last run's are kept.
    """

    runs: dict[str, Run]
    warm_up: bool = False
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number a workload gives.

    Attributes
    ----------
    name : str
        ``W6.back``; the part before the first dot names the workload.
    title : str
    unit : str
        Which of the values of ``side`` it is.
    side, against : str
        The value of ``side`` is divided by that of ``against``; without ``against`` the value itself is the figure.
    limit : float, optional
        What should be reached.
    at_most : bool
        The limit is an upper one.
    against_unit : str, optional
        Where the other side's value has another name.
    """

    name: str
    title: str
    unit: str
    side: str = "fsdriver"
    against: str = ""
    limit: float | None = None
    at_most: bool = False
    against_unit: str = ""

    def met(self, value: float) -> bool | None:
        if self.limit is None:
            return None
        return value <= self.limit if self.at_most else value >= self.limit

    def belongs_to(self, name: str) -> bool:
        """Whether ``name`` on the command line means this figure: ``W6`` all of its workload, ``W6.back`` one."""
        return self.name == name or self.name.startswith(f"{name}.")


@dataclass(slots=True)
class Result:
    """Values of all rounds of one figure, in the order they were taken."""

    figure: Figure
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None

    @property
    def ratios(self) -> list[float]:
        return [ours / other for ours, other in zip(self.ours, self.reference, strict=False)]

    @property
    def judged(self) -> float | None:
        """The number the goal is about."""
        values = self.ratios if self.figure.against else self.ours
        return statistics.median(values) if values else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        return None if self.judged is None else self.figure.met(self.judged)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratios": self.ratios, "met": self.met}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The opposite of `as_json`."""
        fields = {name: value for name, value in data.items() if name not in {"ratios", "met"}}
        return cls(**fields | {"figure": Figure(**data["figure"])})


Make: TypeAlias = Callable[[Environment], AbstractContextManager[Sides]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A registered workload; see `workload`."""

    figures: tuple[Figure, ...]
    make: Make
    most_rounds: int


_workloads: list[Workload] = []


def workload(*figures: Figure, most_rounds: int = 1000) -> Callable[[Make], Make]:
    """Register a workload: a context manager that sets up, yields `Sides`, and cleans up; and the figures it gives.

    Parameters
    ----------
    most_rounds : int
        Where more of them tell nothing new.
    """

    def register(make: Make) -> Make:
        _workloads.append(Workload(figures, make, most_rounds))
        return make

    return register


def workloads() -> Sequence[Workload]:
    """All workloads, in the order of their files' names."""
    package = importlib.import_module("benchmarks.figures")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        importlib.import_module(f"benchmarks.figures.{module.name}")
    return _workloads


def choose(names: Sequence[str], absent: Collection[str]) -> list[Workload]:
    """The workloads with those of their figures that names mean (all without any) and that need no side of ``absent``.

    Raises
    ------
    KeyError
        A name that means no figure.
    """
    known = workloads()
    for name in names:
        if not any(figure.belongs_to(name) for one in known for figure in one.figures):
            raise KeyError(name)

    def wanted(figure: Figure) -> bool:
        named = not names or any(figure.belongs_to(name) for name in names)
        return named and not {figure.side, figure.against} & set(absent)

    chosen = [replace(one, figures=tuple(filter(wanted, one.figures))) for one in known]
    return [one for one in chosen if one.figures]


def measure(one: Workload, environment: Environment, rounds: int = ROUNDS) -> list[Result]:
    """Run a workload; what goes wrong on a side is in `Result.error` of its figures."""
    needed = {side for figure in one.figures for side in (figure.side, figure.against) if side}
    taken: dict[str, list[Values]] = {side: [] for side in needed}
    errors: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    began = time.monotonic()
    try:
        with one.make(environment) as sides:
            facts = sides.facts
            runs = {side: run for side, run in sides.runs.items() if side in needed}
            if sides.warm_up:
                _round(runs, errors)
            for _ in range(min(rounds, one.most_rounds)):
                for side, values in _round(runs, errors):
                    taken[side].append(values)
    except Exception as error:  # noqa: BLE001 - one workload that cannot be set up must not hide the others
        traceback.print_exc()
        errors |= dict.fromkeys(needed, f"{type(error).__name__}: {error}")
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return [_result(figure, taken, errors, facts) for figure in one.figures]


def _round(runs: Mapping[str, Run], errors: dict[str, str]) -> list[tuple[str, Values]]:
    values = []
    for side, run in runs.items():
        if side in errors:
            continue
        try:
            values.append((side, run()))
        except WrongContent as error:
            errors[side] = f"FAIL: {error}"
        except Exception as error:  # noqa: BLE001 - as above, for one side
            traceback.print_exc()
            errors[side] = f"{type(error).__name__}: {error}"
    return values


def _result(
    figure: Figure,
    taken: Mapping[str, Sequence[Values]],
    errors: Mapping[str, str],
    facts: Mapping[str, dict[str, Any]],
) -> Result:
    result = Result(figure, facts={figure.side: facts.get(figure.side, {})})
    result.error = errors.get(figure.side) or errors.get(figure.against)
    if result.error is None:
        result.ours = _column(taken[figure.side], figure.unit)
        if figure.against:
            result.reference = _column(taken[figure.against], figure.against_unit or figure.unit)
            result.facts[figure.against] = facts.get(figure.against, {})
    return result


def _column(values: Iterable[Values], unit: str) -> list[float]:
    return [one[unit] for one in values]
