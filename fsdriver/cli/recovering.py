"""``recover``: what processes that died have left, sent to the stores without a mount."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import click

from fsdriver.cli.options import parse_options
from fsdriver.errors import ConfigError, FsdriverError

if TYPE_CHECKING:
    from fsdriver.config import Config
    from fsdriver.engine import Engine
    from fsdriver.writeback.recovering import Recovery

LOOK: Final = 0.2
"""Seconds between looks at what is left."""
LINES_EVERY: Final = 5.0
"""Seconds between lines of progress where the output is no terminal."""


@click.command()
@click.argument("places", metavar="[URL|ROUTE]…", nargs=-1)
@click.option(
    "-o", "options", multiple=True, metavar="NAME=VALUE,…", help="Keys of the backend of URLs, e.g. endpoint, region."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), help="Seconds to go on for; without it, until all is done or fails."
)
def recover(places: tuple[str, ...], options: tuple[str, ...], timeout: float | None) -> int:
    """Send what processes that died still owe to the stores: of URL, of ROUTE (/data) in the configuration, or everything.

    What a living process writes or uploads is left to it. The status is 0 if nothing of the dead is owed any more.
    """
    given = parse_options(options)
    if given and any("://" not in place for place in places):
        raise ConfigError(
            "-o is for URLs; this is a route of the configuration", next(p for p in places if "://" not in p)
        )
    from fsdriver.engine import open_engine

    failed = False
    for config, stores in _configs(places, given):
        engine = open_engine(config, write="back")
        try:
            for store in sorted(engine.uploaders if stores is None else stores):
                failed |= not _recover(engine, store, timeout)
        finally:
            engine.close()
    _sweep()
    return 1 if failed else 0


def _sweep() -> None:
    from fsdriver.config import cache_dir, load, state_dir
    from fsdriver.writeback.recovering import sweep

    if removed := sweep(state_dir(), cache_dir(load()) / ".staging"):
        click.echo(f"{removed:,} files were removed that had not been closed when their process died")


def _configs(places: Sequence[str], options: dict[str, str]) -> Iterator[tuple[Config, set[str] | None]]:
    """Configurations to open, and the stores of each that were asked for (None: all)."""
    from fsdriver.config import from_url, load

    base = load()
    for place in places:
        if "://" in place:
            yield from_url(place, {"posix": "off", **options}, base), None
        else:
            yield _of_route(base, place), None
    if places:
        return
    from fsdriver.config import state_dir
    from fsdriver.writeback.recovering import owing_stores, url_of

    owing = owing_stores(state_dir())
    if not owing:
        click.echo("nothing is owed")
    if base.route:
        from fsdriver.engine import open_engine

        with closing(open_engine(base, write="back")) as engine:
            configured = owing & set(engine.uploaders)
        if configured:
            yield base, configured
            owing -= configured
    for store in sorted(owing):
        url, endpoint = url_of(store)
        yield from_url(url, {"posix": "off", **({"endpoint": endpoint} if endpoint else {}), **options}, base), {store}


def _of_route(base: Config, place: str) -> Config:
    wanted = "/" + place.strip("/")
    routes = [route for route in base.route if route.path == wanted]
    if not routes:
        known = ", ".join(route.path for route in base.route) or "none"
        raise ConfigError(f"no such route is configured (there are: {known}); give a route, or a URL", place)
    return base.model_copy(update={"route": routes})


def _recover(engine: Engine, store: str, timeout: float | None) -> bool:
    """One store; True if nothing of the dead is owed to it any more."""
    from fsdriver.runtime import spawn
    from fsdriver.writeback.recovering import Recovery

    recovery = Recovery(engine.uploaders[store])
    total = recovery.left()
    if total == 0 and not recovery.parts():
        click.echo(f"{store}: nothing is owed{_of_the_living(recovery)}")
        return True
    holder = recovery.holder()
    if holder is not None:
        click.echo(f"{store}: {_changes(total)} wait for {holder}, which uploads to this store; left to it")
        return True
    began = time.monotonic()
    work = spawn(recovery.finish(timeout))
    error: FsdriverError | None = None
    with _progress(store, total) as show:
        while not wait([work], LOOK, FIRST_COMPLETED).done:
            show(total - recovery.left())
        try:
            work.result()
        except FsdriverError as failure:
            error = failure
        left = recovery.left()
        show(max(0, total - left))
    seconds = time.monotonic() - began
    click.echo(f"{store}: {_changes(max(0, total - left))} sent in {seconds:.1f} s{_of_the_living(recovery)}")
    if parts := recovery.parts():
        click.echo(f"fsdriver: {store}: parts of {parts:,} files that were cut off stay in the store", err=True)
    if left or error is not None:
        click.echo(f"fsdriver: {store}: {_changes(left)} stay journaled, and can be sent later: {error}", err=True)
        return False
    return not parts


def _of_the_living(recovery: Recovery) -> str:
    count = recovery.of_the_living()
    return f"; {count:,} files that living processes have open are left to them" if count else ""


def _changes(count: int) -> str:
    return f"{count:,} change{'' if count == 1 else 's'}"


@contextmanager
def _progress(store: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = time.monotonic()

        def tell(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINES_EVERY:
                last = time.monotonic()
                click.echo(f"{store}: {done:,} of {_changes(total)} sent", err=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(store, total=total)
        yield lambda done: progress.update(task, completed=done)
