"""``upload`` and ``download``: many files at a time, resumable."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fsdriver.cli.options import parse_options, refuse_secrets

if TYPE_CHECKING:
    from fsdriver.bulk import Report

JOBS: Final = 8
SHOWN_SKIPS: Final = 20

_options: Final = (
    click.option("--jobs", "-j", type=click.IntRange(1, 1024), help="Files, or batches of small ones, at a time. [8]"),
    click.option("--processes", "-p", type=click.IntRange(1, 256), help="Work in so many processes, not in threads."),
    click.option(
        "--resume",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Note in this file what is done; what it says is done is not done again.",
    ),
    click.option("--pattern", metavar="GLOB", help="Only files whose path below the source matches, e.g. '*.bin'."),
    click.option(
        "-o", "options", multiple=True, metavar="NAME=VALUE,…", help="Keys of the URL's backend, e.g. endpoint, region."
    ),
)


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_options):
        command = option(command)
    return command


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("url")
@_with_options
def upload(source: Path, url: str, **given: Any) -> int:
    """Upload SOURCE, a file or a directory with all its files, to URL (s3://bucket/prefix, tier://path, …).

    Exit status: 0 the store has every file, 1 some failed, which is said of each.
    """
    from fsdriver.bulk import upload as run

    return _tell("uploaded", _run(url, lambda **how: run(source, url, **how), **given))


@click.command()
@click.argument("url")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@_with_options
def download(url: str, directory: Path, **given: Any) -> int:
    """Download URL, a file or all files below it, into DIRECTORY.

    Exit status: 0 every file is there, 1 some failed, which is said of each.
    """
    from fsdriver.bulk import download as run

    return _tell("downloaded", _run(url, lambda **how: run(url, directory, **how), **given))


def _run(
    url: str,
    job: Callable[..., Report],
    *,
    jobs: int | None,
    processes: int | None,
    resume: Path | None,
    pattern: str | None,
    options: tuple[str, ...],
) -> Report:
    how: dict[str, Any] = {"resume": resume, "pattern": pattern, "progress": True}
    how["storage_options"] = _checked(url, parse_options(options))
    with ExitStack() as stack:
        if processes is not None:
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
            how["executor"] = stack.enter_context(pool)
        return job(jobs=jobs or (JOBS if processes is None else 2 * processes), **how)


def _checked(url: str, options: dict[str, str]) -> dict[str, Any]:
    """Options of the URL's backend as tables. Raises ConfigError for one that is unknown, wrong or shows a secret."""
    if not options or url.startswith("tier://"):
        return dict(options)
    from fsdriver.config import from_url
    from fsdriver.errors import ConfigError

    refuse_secrets(options)
    given = from_url(url.removeprefix("tier::"), options).backend["default"].model_dump(exclude_unset=True)
    if other := {name.partition(".")[0] for name in options} - given.keys():
        raise ConfigError("this is no option of a backend; uploads and downloads have no others", min(other))
    return {name: value for name, value in given.items() if name != "url"}


def _tell(what: str, report: Report) -> int:
    from rich.filesize import decimal

    for failure in report.failures:
        click.echo(f"fsdriver: {failure}", err=True)
    for skipped in report.skipped[:SHOWN_SKIPS]:
        click.echo(f"fsdriver: left out: {skipped}", err=True)
    if len(report.skipped) > SHOWN_SKIPS:
        click.echo(f"fsdriver: left out: {len(report.skipped) - SHOWN_SKIPS:,} more", err=True)
    before = f", {report.before:,} done before" if report.before else ""
    failed = f", {len(report.failures):,} failed" if report.failures else ""
    left = f", {report.left:,} not tried" if report.left else ""
    click.echo(
        f"{report.files:,} files {what}, {decimal(report.bytes)} in {report.seconds:.1f} s{before}{failed}{left}"
    )
    return 0 if report.ok else 1
