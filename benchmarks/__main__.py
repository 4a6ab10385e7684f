"""Run figures: ``python -m benchmarks [NAME…]``; the exit status is 0 whatever they show."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report
from benchmarks.environment import Environment, machine
from benchmarks.harness import PAIRS, Result, figures, measure


@click.command()
@click.argument("names", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="Name the figures and end.")
@click.option("--pairs", type=click.IntRange(min=1), default=PAIRS, show_default=True, help="Pairs of each figure.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all values to this file.")
@click.option("--from-json", "stored", type=click.Path(path_type=Path), help="Show what an earlier --json wrote.")
@click.option("--markdown", "page", is_flag=True, help=f"Put the table into {report.PAGE.name}.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work: a disk with 20 GiB free.")
def main(
    names: tuple[str, ...],
    list_only: bool,
    pairs: int,
    file: Path | None,
    stored: Path | None,
    page: bool,
    directory: Path | None,
) -> None:
    """Measure the figures NAMES (all without any) and show them."""
    known = figures()
    console = Console()
    if list_only:
        for one in known.values():
            console.print(f"{one.name:<24} {one.title}")
        return
    unknown = set(names) - set(known)
    if unknown:
        raise click.UsageError(f"no such figure: {', '.join(sorted(unknown))} (see --list)")
    chosen = [known[name] for name in names or known]
    results: list[Result] = []
    about = machine()
    if stored is not None:
        data = json.loads(stored.read_text())
        about = data["machine"]
        results = [Result.from_json(entry) for entry in data["figures"]]
    else:
        with Environment(directory) as environment:
            for one in chosen:
                console.print(f"{one.name}: {one.title} …")
                results.append(measure(one, environment, pairs))
                console.print("  " + " | ".join(report.row(results[-1])[1:]))
    report.show(results, console)
    if file is not None:
        values = {"machine": about, "time": time.time(), "figures": [result.as_json() for result in results]}
        file.write_text(json.dumps(values, indent=2))
    if page:
        report.write_page(results, about)


if __name__ == "__main__":
    main()
