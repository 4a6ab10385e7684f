"""Run figures: ``python -m benchmarks [NAME…]``; the exit status is 0 whatever they show, but for a wrong byte."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from benchmarks import page, report
from benchmarks.environment import Environment, machine
from benchmarks.harness import ROUNDS, Result, choose, measure, workloads
from benchmarks.peers import PEERS


@click.command()
@click.argument("names", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="Name the figures and end.")
@click.option("--pairs", type=click.IntRange(min=1), default=ROUNDS, show_default=True, help="Rounds of each workload.")
@click.option("--peers", default="", help=f"Compare with these too: {','.join(PEERS)} (they are fetched if missing).")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all values to this file.")
@click.option("--from-json", "stored", type=click.Path(path_type=Path), help="Show what an earlier --json wrote.")
@click.option("--markdown", is_flag=True, help=f"Merge the rows into {page.PAGE.name}.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work: a disk with 30 GiB free.")
def main(
    names: tuple[str, ...],
    list_only: bool,
    pairs: int,
    peers: str,
    file: Path | None,
    stored: Path | None,
    markdown: bool,
    directory: Path | None,
) -> None:
    """Measure the figures NAMES (all without any) and show them; W6 means all figures of that workload."""
    console = Console()
    if list_only:
        for one in workloads():
            for figure in one.figures:
                console.print(f"{figure.name:<22} {figure.title}; target {report.target(figure)}", soft_wrap=True)
        return
    asked = {name for name in peers.split(",") if name}
    if asked - set(PEERS):
        raise click.UsageError(
            f"no such program: {', '.join(sorted(asked - set(PEERS)))}; known are {', '.join(PEERS)}"
        )
    if stored is not None:
        data = json.loads(stored.read_text())
        about, day = data["machine"], data["day"]
        results = [Result.from_json(entry) for entry in data["figures"]]
    else:
        about, day = machine(), dt.datetime.now(dt.UTC).date().isoformat()
        results = []
        for some in _measure(names, set(PEERS) - asked, pairs, directory, console):
            results += some
            if file is not None:
                values = {"machine": about, "day": day, "figures": [result.as_json() for result in results]}
                file.write_text(json.dumps(values, indent=2))
    report.show(results, console)
    if markdown:
        page.write_page(results, about, day)
    sys.exit(any(result.error for result in results))


def _measure(
    names: tuple[str, ...], absent: set[str], rounds: int, directory: Path | None, console: Console
) -> Iterator[list[Result]]:
    """Results of one workload after the other: an interrupted run has written what it had."""
    try:
        chosen = choose(names, absent)
    except KeyError as error:
        raise click.UsageError(f"no such figure: {error.args[0]} (see --list)") from error
    with Environment(directory) as environment:
        for one in chosen:
            console.print(f"{', '.join(figure.name for figure in one.figures)} …")
            results = measure(one, environment, rounds)
            for result in results:
                console.print("  " + " | ".join(report.row(result)), markup=False, soft_wrap=True)
            yield results


if __name__ == "__main__":
    main()
