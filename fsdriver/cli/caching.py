"""Commands on the cache: ``warm``, ``evict``, ``pin``, ``unpin``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

import click

from fsdriver.cli.options import parse_options
from fsdriver.cli.output import progress

if TYPE_CHECKING:
    from fsdriver.cli.places import Place

JOBS: Final = 8
STAY: Final = {
    "open": "open in some program",
    "pinned": "pinned (fsdriver unpin)",
    "pending": "not in the store yet (fsdriver sync)",
}
"""Why a file stays in the cache, by the fields of `fsdriver.routes.caching.Eviction`."""

_paths = click.argument("paths", metavar="PATH…", nargs=-1, required=True)
_options = click.option(
    "-o", "options", multiple=True, metavar="NAME=VALUE,…", help="Keys of the backend of URLs, e.g. endpoint, region."
)
_recursive = click.option("--recursive", "-r", is_flag=True, help="Take the files of directories.")


@click.command()
@_paths
@_recursive
@click.option("--jobs", "-j", type=click.IntRange(1, 256), default=JOBS, show_default=True, help="Files at a time.")
@_options
def warm(paths: tuple[str, ...], recursive: bool, jobs: int, options: tuple[str, ...]) -> int:
    """Fetch files into the cache: each PATH lies in a mount, or is a URL (tier://…, s3://…)."""
    from fsdriver.cli.places import opened

    with opened(paths, parse_options(options)) as places:
        files = [(place, *file) for place in places for file in place.files(recursive=recursive)]
        return _warm(files, jobs)


def _warm(files: Sequence[tuple[Place, str, int]], jobs: int) -> int:
    from rich.filesize import decimal

    from fsdriver.bulk.flight import in_flight

    total = sum(size for *_, size in files)
    if files and total > (room := files[0][0].capacity()):
        click.echo(
            f"fsdriver: these are {decimal(total)} and the cache holds {decimal(room)}: what comes last evicts what came"
            " first",
            err=True,
        )
    fetched, here, failed, there = 0, 0, 0, 0
    try:
        with progress(total) as advance:
            for (_, path, size), future in in_flight(files, lambda file: file[0].warm(file[1]), jobs):
                advance(size)
                got = _result(future, path)
                failed += got is None
                there += got is not None
                here += got == 0
                fetched += got or 0
    finally:
        click.echo(f"{_files(there)} in the cache: {decimal(fetched)} fetched, {here:,} here already")
    return 1 if failed else 0


@click.command()
@_paths
@_options
def evict(paths: tuple[str, ...], options: tuple[str, ...]) -> int:
    """Remove files, and all files of directories, from the cache; 1 if some had to stay."""
    from rich.filesize import decimal

    from fsdriver.cli.places import opened

    total: Counter[str] = Counter()
    with opened(paths, parse_options(options)) as places:
        for place in places:
            done = place.evict()
            for why, words in STAY.items():
                if done[why]:
                    click.echo(f"fsdriver: {place.name}: {_files(done[why])} {_stay(done[why])}: {words}", err=True)
            total.update({name: done[name] for name in ("files", "bytes", *STAY)})
    click.echo(f"{_files(total['files'])} evicted, {decimal(total['bytes'])}")
    return 1 if any(total[why] for why in STAY) else 0


@click.command()
@_paths
@_recursive
@_options
def pin(paths: tuple[str, ...], recursive: bool, options: tuple[str, ...]) -> None:
    """Never evict these files from the cache, in whichever version; it does not fetch them."""
    click.echo(f"{_files(_set_pins(paths, options, recursive=recursive, pinned=True))} pinned")


@click.command()
@_paths
@_recursive
@_options
def unpin(paths: tuple[str, ...], recursive: bool, options: tuple[str, ...]) -> None:
    """Undo pin."""
    click.echo(f"{_files(_set_pins(paths, options, recursive=recursive, pinned=False))} unpinned")


def _set_pins(paths: Sequence[str], options: Sequence[str], *, recursive: bool, pinned: bool) -> int:
    from fsdriver.cli.places import opened

    with opened(paths, parse_options(options)) as places:
        return sum(
            place.set_pins((path for path, _ in place.files(recursive=recursive)), pinned=pinned) for place in places
        )


def _result(future: Future[int], path: str) -> int | None:
    """Bytes fetched; None, after saying why, if that failed."""
    try:
        return future.result()
    except OSError as error:
        text = str(error)
        click.echo(f"fsdriver: {text if path.strip('/') in text else f'{path}: {text}'}", err=True)
        return None


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _stay(count: int) -> str:
    return "stays" if count == 1 else "stay"
