"""Commands that look whether all is as it should be: ``verify``, ``fsck``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from fsdriver.cli.options import parse_options
from fsdriver.cli.output import progress

if TYPE_CHECKING:
    from pathlib import Path

    from fsdriver.cli.places import Place

CLEAN: Final = 0
FOUND: Final = 1
UNABLE: Final = 2
"""Exit statuses."""
JOBS: Final = 8


class Report:
    """What is found, told as it comes; as JSON at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self.problems: list[str] = []
        self.failures: list[str] = []
        self.parts: dict[str, Any] = {}

    def wrong(self, text: str) -> None:
        self.problems.append(text)
        self._say(f"wrong: {text}")

    def unable(self, error: BaseException, path: str = "") -> None:
        text = str(error)
        text = text if path.strip("/") in text else f"{path}: {text}"
        self.failures.append(text)
        click.echo(f"fsdriver: {text}", err=True)

    def sum_up(self, name: str, part: Mapping[str, Any], text: str) -> None:
        self.parts[name] = part
        self._say(text)

    def end(self) -> int:
        status = UNABLE if self.failures else FOUND if self.problems else CLEAN
        if self._json:
            told = {**self.parts, "problems": self.problems, "failures": self.failures, "status": status}
            click.echo(json.dumps(told, indent=2))
        return status

    def _say(self, text: str) -> None:
        if not self._json:
            click.echo(text)


@click.command()
@click.argument("paths", metavar="[PATH…]", nargs=-1)
@click.option("--cache", "local", is_flag=True, help="The cache and staging of this user, beside the PATHs.")
@click.option("--bytes", "everything", is_flag=True, help="Fetch all bytes of the PATHs and compare them, too.")
@click.option("--repair", is_flag=True, help="Fetch damaged cache files anew at once; forget what is not there.")
@click.option("--jobs", "-j", type=click.IntRange(1, 256), default=JOBS, show_default=True, help="Files at a time.")
@click.option("--json", "as_json", is_flag=True, help="The findings, as JSON.")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE,…", help="Keys of the backend of URLs.")
def verify(
    paths: tuple[str, ...],
    local: bool,
    everything: bool,
    repair: bool,
    jobs: int,
    as_json: bool,
    options: tuple[str, ...],
) -> int:
    """Compare files with what they should be.

    Each PATH lies in a mount, or is a URL (tier://…, s3://…): the files there and below are compared with the store and with the
    cache. Without a PATH, or with --cache: the whole cache with its checksums, and staging with what is to be uploaded. Mounts
    may be alive. What is damaged in the cache is removed there, and fetched when it is next read.

    Exit status: 0 all is well, 1 something was wrong, 2 something could not be checked.
    """
    report = Report(as_json=as_json)
    try:
        if local or not paths:
            _verify_places(report, jobs, repair=repair)
        if paths:
            _verify_paths(report, paths, options, jobs, everything=everything, repair=repair)
    except OSError as error:
        report.unable(error)
    return report.end()


def _verify_places(report: Report, jobs: int, *, repair: bool) -> None:
    from fsdriver.config import cache_dir, load, state_dir
    from fsdriver.writeback.checking import check

    cache = cache_dir(load())
    standing = check(state_dir(), cache / ".staging")
    for problem in standing.problems:
        report.wrong(problem)
    report.sum_up(
        "staging",
        asdict(standing),
        f"staging: {_count(standing.rows, 'change')} of {_size(standing.bytes)} wait for the stores, "
        f"{_count(standing.leftovers, 'file')} of dead processes go at the next start",
    )
    _verify_cache(report, cache, jobs, repair=repair)


def _verify_cache(report: Report, cache: Path, jobs: int, *, repair: bool) -> None:
    from fsdriver.cache import Checker, FileState, Index

    objects, index = cache / "objects", Index(cache / "index.db", cache / "objects")
    try:
        checker = Checker(objects, cache / ".lock", index)
        listed, states, size = checker.listed(), Counter[str](), 0
        with progress(sum(one.size for one in listed)) as advance, ThreadPoolExecutor(jobs) as threads:
            for one, state in zip(
                listed, threads.map(lambda one: checker.look(one, repair=repair), listed), strict=True
            ):
                advance(one.size)
                states[state] += 1
                size += one.size
                if state is FileState.DAMAGED:
                    what = "blocks of it" if one.partial else "it"
                    report.wrong(f"{one.label}: damaged in the cache; {what} will be fetched anew")
                elif state is FileState.ABSENT:
                    report.wrong(f"{one.label}: counted in the cache, and not there{'; forgotten' if repair else ''}")
        for stray in checker.strays(repair=repair):
            states["stray"] += 1
            done = "removed" if repair else "--repair removes it"
            report.wrong(f"{stray.place}: {_size(stray.size)} in the cache that nothing counts; {done}")
    finally:
        index.close()
    unknown = states[FileState.UNKNOWN]
    report.sum_up(
        "cache",
        {"files": len(listed), "bytes": size, **{str(state): states[state] for state in (*FileState, "stray")}},
        f"cache: {_count(states[FileState.GOOD], 'file')} as written, {unknown:,} without a checksum"
        f"{' (--bytes with their PATH compares them with the store)' if unknown else ''}, "
        f"{states[FileState.MOVED]:,} changed meanwhile; {_size(size)} in all",
    )


def _verify_paths(
    report: Report, paths: Sequence[str], options: Sequence[str], jobs: int, *, everything: bool, repair: bool
) -> None:
    from fsdriver.cli.places import opened

    states: Counter[str] = Counter()
    with opened(paths, parse_options(options)) as places:
        files = [(place, *file) for place in places for file in place.files(recursive=True)]
        with progress(sum(size for *_, size in files)) as advance:
            for path, answer in _answers(files, jobs, advance, everything=everything, repair=repair):
                if isinstance(answer, BaseException):
                    report.unable(answer, path)
                    continue
                states.update({answer["state"]: 1, "bytes": answer["bytes"], "compared": answer["compared"]})
                for problem in answer["problems"]:
                    report.wrong(f"{path}: {problem}{' and fetched anew' if answer['repaired'] else ''}")
    compared = (
        f"; {_size(states['bytes'])} fetched, {states['compared']:,} have the store's checksum" if everything else ""
    )
    report.sum_up(
        "files",
        {name: states[name] for name in ("good", "wrong", "pending", "gone", "bytes", "compared")},
        f"{_count(states['good'], 'file')} as the store has them, {states['pending']:,} not there yet, {states['wrong']:,} wrong"
        f"{compared}",
    )


def _answers(
    files: Sequence[tuple[Place, str, int]],
    jobs: int,
    advance: Callable[[int], None],
    *,
    everything: bool,
    repair: bool,
) -> Iterator[tuple[str, Mapping[str, Any] | OSError]]:
    from fsdriver.bulk.flight import in_flight

    def begin(file: tuple[Place, str, int]) -> Future[Mapping[str, Any]]:
        return file[0].verify(file[1], everything=everything, repair=repair)

    for (_, path, size), future in in_flight(files, begin, jobs):
        advance(size)
        try:
            yield path, future.result()
        except OSError as error:
            yield path, error


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
        click.echo(f"the catalog is in order; {_count(found.rows, 'change')} wait for the stores")
    elif check:
        click.echo("nothing was changed (--check)")
    else:
        click.echo(f"{_count(found.rows, 'change')} wait for the stores; mount again to upload them")
    return FOUND if found.problems else CLEAN


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)
