"""Commands on tiers: ``move``, ``explain``, ``sweep``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from fsdriver.cli.options import parse_options
from fsdriver.cli.output import print_table, progress

if TYPE_CHECKING:
    from fsdriver.cli.places import Place

JOBS: Final = 8

_options = click.option(
    "-o", "options", multiple=True, metavar="NAME=VALUE,…", help="Keys of the backend of URLs, e.g. endpoint, region."
)


@click.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("--tier", required=True, help="Name of the tier: a backend of the route's `tiers` or `replicate`.")
@click.option("--recursive", "-r", is_flag=True, help="Take the files of directories.")
@click.option("--keep", is_flag=True, help="Leave the copies in other tiers where they are.")
@click.option("--pin", is_flag=True, help="Let no rule move it away again; a move without this undoes it.")
@click.option("--jobs", "-j", type=click.IntRange(1, 256), default=JOBS, show_default=True, help="Files at a time.")
@_options
def move(
    paths: tuple[str, ...], tier: str, recursive: bool, keep: bool, pin: bool, jobs: int, options: tuple[str, ...]
) -> int:
    """Have verified copies of files in a tier, and let go of those in others; 1 if some could not be moved."""
    from rich.filesize import decimal

    from fsdriver.bulk.flight import in_flight
    from fsdriver.cli.places import opened

    moved = size = failed = 0
    with opened(paths, parse_options(options)) as places:
        files = [(place, *file) for place in places for file in place.files(recursive=recursive)]

        def begin(file: tuple[Place, str, int]) -> Future[Mapping[str, Any]]:
            return file[0].move(file[1], tier, keep=keep, pin=pin)

        with progress(sum(bytes_ for *_, bytes_ in files)) as advance:
            for (_, path, _), future in in_flight(files, begin, jobs):
                try:
                    told = future.result()
                except OSError as error:
                    failed += 1
                    text = str(error)
                    click.echo(f"fsdriver: {text if path.strip('/') in text else f'{path}: {text}'}", err=True)
                else:
                    moved, size = moved + 1, size + told["size"]
                    advance(told["size"])
    click.echo(f"{moved:,} file{'' if moved == 1 else 's'} in {tier}: {decimal(size)}")
    return 1 if failed else 0


@click.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_options
def explain(path: str, as_json: bool, options: tuple[str, ...]) -> None:
    """Tell where the copies of a file are, how hot it is, and what would move it, and when."""
    from fsdriver.cli.places import opened

    with opened([path], parse_options(options)) as (place,):
        for inside, _ in place.files(recursive=False):
            told = place.explain(inside)
            click.echo(json.dumps(told, indent=2)) if as_json else _show(told)


@click.command()
@click.argument("place", default="tier://")
@click.option("--dry-run", is_flag=True, help="Only tell what would be moved, and why.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def sweep(place: str, dry_run: bool, as_json: bool) -> None:
    """Have the rules of the tiers look at all files now: PLACE is a mount, or tier://, the configured tree."""
    from rich.filesize import decimal

    from fsdriver.cli.places import opened

    with opened([place], {}) as (tree,):
        told = tree.sweep(dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for move in told["moves"]:
        click.echo(f"{move['path']}: {_order(move)}")
    count = len(told["moves"]) if dry_run else told["owed"]
    verb = "would be made" if dry_run else "are owed now"
    click.echo(f"{count:,} cop{'y' if count == 1 else 'ies'} {verb}, {decimal(told['bytes'])}")


def _order(move: Mapping[str, Any]) -> str:
    leaves = f", then goes from {', '.join(move['leaves'])}" if move["leaves"] else ""
    return f"a copy in {move['target']}{leaves} ({move['reason']})"


def _show(told: Mapping[str, Any]) -> None:
    from rich.filesize import decimal

    rows = []
    for tier in told["tiers"]:
        copy = told["copies"].get(tier)
        checked = "" if copy is None or not copy["checked"] else _moment(copy["checked"])
        rows.append([tier, "-" if copy is None else copy["state"], checked])
    print_table(["tier", "copy", "verified"], rows)
    uses = f"{told['uses']:,} use{'' if told['uses'] == 1 else 's'}" + (
        f", the last {_moment(told['last_use'])}" if told["uses"] else ""
    )
    click.echo(f"{decimal(told['size'])}, heat {told['heat']:.3g} ({uses})")
    if told["pin"]:
        click.echo(f"pinned to {told['pin']}: no rule moves it")
    for owed in told["moves"]:
        click.echo(f"owed: {_order(owed)}" + (f"; tried: {owed['error']}" if owed["error"] else ""))
    if told["held"]:
        click.echo(told["held"])
    for move in told["next"]:
        when = f"in {timedelta(seconds=round(told['next_due']))}" if told["next_due"] else "now"
        click.echo(f"{when}: {_order(move)}")
    for rule in told["rules"]:
        verb = {"leaves": "gives it up", "enters": "takes it", "stays": "keeps it"}[rule["effect"]]
        click.echo(f"{rule['tier']} {verb} by {rule['rule']}: {rule['text']}")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
