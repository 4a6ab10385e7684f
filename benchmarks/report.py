"""How figures are shown: lines on the terminal, JSON for machines, Markdown for the page (`benchmarks.page`)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

from benchmarks.harness import Figure, Result

HEADINGS: Final = ("figure", "work", "fsdriver", "compared with", "ratio (lowest to highest)", "target", "reached")


def row(result: Result) -> tuple[str, ...]:
    """One line of any table."""
    figure = result.figure
    if result.error is not None:
        return figure.name, figure.title, "-", figure.against or "-", "-", target(figure), result.error.split("\n")[0]
    ours = f"{number(statistics.median(result.ours))} {_unit(figure.unit)}"
    other, spread = "-", "-"
    if figure.against:
        other = f"{_named(figure)} {number(statistics.median(result.reference))}"
        low, middle, high = min(result.ratios), statistics.median(result.ratios), max(result.ratios)
        spread = f"{number(middle)} ({number(low)} to {number(high)})"
    elif len(result.ours) > 1:
        spread = f"({number(min(result.ours))} to {number(max(result.ours))})"
    return figure.name, figure.title, ours, other, spread, target(figure), _reached(result)


def _unit(unit: str) -> str:
    return unit.partition(" of ")[0].partition(" again")[0].partition(" to ")[0]


def _named(figure: Figure) -> str:
    return "one time the work" if figure.against == figure.side else figure.against


def _reached(result: Result) -> str:
    if result.met is None:
        return "-"
    if result.met:
        return "yes"
    assert result.judged is not None
    assert result.figure.limit is not None
    return f"**no**: {number(result.judged)} instead of {number(result.figure.limit)}"


def target(figure: Figure) -> str:
    if figure.limit is None:
        return "-"
    unit = f"x {_named(figure)}" if figure.against else _unit(figure.unit)
    return f"{'≤' if figure.at_most else '≥'} {number(figure.limit)} {unit}"


def number(value: float) -> str:
    """Three figures are more than a run on a shared machine is worth."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 and value != int(value) else f"{value:.2g}"


def show(results: Sequence[Result], console: Console) -> None:
    for line in (" | ".join(HEADINGS), *(" | ".join(row(result)) for result in results), *counts(results)):
        console.print(line, markup=False, soft_wrap=True)


def counts(results: Sequence[Result]) -> list[str]:
    """One line for each side of each workload: what its last run cost."""
    lines: dict[str, str] = {}
    for result in results:
        for side, facts in result.facts.items():
            _lines(lines, f"{result.figure.name.partition('.')[0]} {side}", facts)
    return [f"- {name}: {text}" for name, text in lines.items()]


def _lines(lines: dict[str, str], name: str, facts: dict[str, Any]) -> None:
    plain = {key: value for key, value in facts.items() if not isinstance(value, dict)}
    if plain:
        lines.setdefault(name, "; ".join(f"{key} {_plain(value)}" for key, value in plain.items()) + ".")
    for key, value in facts.items():
        if isinstance(value, dict):
            _lines(lines, f"{name} {key}", value)


def _plain(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
