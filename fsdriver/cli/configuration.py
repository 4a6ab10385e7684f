"""``config check``: read the configuration as the other commands do, and say what it means."""

from __future__ import annotations

from pathlib import Path

import click

from fsdriver.errors import ConfigError


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> int:
    """Check FILE, or the configuration found in the usual places, and show the tree it makes."""
    from fsdriver.cli.output import print_table
    from fsdriver.config import find_config, load

    found = find_config(file)
    loaded = load(file)
    if not found:
        click.echo("no configuration file: the defaults apply, and a URL alone can be mounted")
    for path in found:
        click.echo(f"{path}: ok")
    if loaded.route:
        rows = []
        for route in sorted(loaded.route, key=lambda item: item.path):
            urls = "\n".join(f"{name} ({loaded.backend[name].url})" for name in route.tiers)
            rows.append((route.path, urls, route.write or "back / through", f"{route.ttl:g} s", route.policy))
        print_table(("route", "tiers", "write", "ttl", "policy"), rows)
    problems = _unreadable_secrets(loaded)
    for problem in problems:
        click.echo(f"fsdriver: {problem}", err=True)
    return 1 if problems else 0


def _unreadable_secrets(loaded: object) -> list[str]:
    from fsdriver.config import Config, reveal

    assert isinstance(loaded, Config)
    problems = []
    for name, backend in loaded.backend.items():
        for key in ("access_key_id", "secret_access_key", "session_token"):
            try:
                reveal(getattr(backend, key))
            except ConfigError as error:
                problems.append(f"backend.{name}.{key}: {error}")
        try:
            backend.resolved_options()
        except ConfigError as error:
            problems.append(f"backend.{name}.storage_options: {error}")
    return problems
