"""Commands that look whether all is as it should be: ``fsck``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

CLEAN, FOUND, UNABLE = 0, 1, 2
"""Exit statuses."""


@click.command()
@click.option("--check", is_flag=True, help="Change nothing.")
@click.option("--json", "as_json", is_flag=True, help="The findings, as JSON.")
def fsck(check: bool, as_json: bool) -> int:
    """Check the catalog of what this host owes to stores, and repair it: also one that was deleted.

    Nothing of this user may be mounted. Exit status: 0 nothing was wrong, 1 something was (and is repaired, without --check),
    2 it could not be checked.
    """
    from fsdriver.config import cache_dir, load, state_dir
    from fsdriver.writeback.rebuilding import check as look

    try:
        found = look(state_dir(), cache_dir(load()) / ".staging", repair=not check)
    except OSError as error:
        click.echo(f"fsdriver: {error}", err=True)
        return UNABLE
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return FOUND if found.problems else CLEAN
    for problem in found.problems:
        click.echo(f"wrong: {problem}")
    for repair in found.repairs:
        click.echo(f"repaired: {repair}")
    if not found.problems:
        click.echo(f"the catalog is in order; {found.rows:,} changes wait for the stores")
    elif check:
        click.echo("nothing was changed (--check)")
    else:
        click.echo(f"{found.rows:,} changes wait for the stores; mount again to upload them")
    return FOUND if found.problems else CLEAN
