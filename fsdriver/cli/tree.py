"""Commands on a mounted tree or a URL: ``status``, ``refresh``, ``sync``, ``ls``."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsdriver.cli.mounts import PLACE, locate, mounted
from fsdriver.errors import BackendError, FsdriverError

if TYPE_CHECKING:
    from fsdriver.entry import Entry
    from fsdriver.fuse_mount.mounts import Mounted


@click.command()
@click.argument("directory", metavar="[DIR]", required=False, type=PLACE)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def status(directory: Path | None, as_json: bool) -> int:
    """Show the mounts of this user, or the one at DIR."""
    if directory is None:
        # Daemons of other users do not answer this one.
        mounts = [mount for mount in mounted() if mount.owner in {None, os.geteuid()}]
    else:
        point, _ = locate(directory)
        mounts = [mount for mount in mounted() if Path(mount.directory) == point]
    answers = [_ask(mount) for mount in mounts]
    if as_json:
        click.echo(json.dumps(answers, indent=2, default=str))
    elif not answers:
        click.echo("nothing is mounted")
    else:
        _show(answers)
    return 1 if any("error" in answer for answer in answers) else 0


@click.command()
@click.argument("path", metavar="PATH", type=PLACE)
def refresh(path: Path) -> None:
    """Forget what is cached of names and attributes at and below PATH."""
    point, inside = locate(path)
    from fsdriver.fuse_mount.control import request

    request(point, "refresh", path=inside)


@click.command()
@click.argument("path", metavar="PATH", type=PLACE)
def sync(path: Path) -> None:
    """Wait until everything written at and below PATH is in the tiers."""
    point, inside = locate(path)
    from fsdriver.fuse_mount.control import request

    request(point, "sync", path=inside)


@click.command()
@click.argument("url", metavar="URL")
@click.option("--raw", is_flag=True, help="Keys as the store has them, those without a name in the tree among them.")
@click.option(
    "-o", "options", multiple=True, metavar="NAME=VALUE,…", help="Keys of the backend, e.g. endpoint, region."
)
@click.option("-l", "long", is_flag=True, help="With mode, size and time.")
def ls(url: str, raw: bool, options: tuple[str, ...], long: bool) -> None:
    """List a URL, without mounting it."""
    from fsdriver.cli.options import parse_options
    from fsdriver.config import from_url, load

    config = from_url(url, parse_options(options), load())
    if raw:
        _list_raw(config)
        return
    from fsdriver.engine import open_engine
    from fsdriver.runtime import run

    engine = open_engine(config)
    try:
        run(engine.check())  # what is wrong with a store is said of the store, not of the first key asked for
        route, path = engine.route("/")
        for name, entry in sorted(run(route.list(path)).items()):
            click.echo(_line(name, entry) if long else name)
    finally:
        engine.close()


def _list_raw(config: Any) -> None:
    from fsdriver.backends import open_backend
    from fsdriver.runtime import on_loop, run

    async def show() -> None:
        await on_loop()
        backend, prefix = open_backend("default", config.backend["default"])
        try:
            async for page in backend.list(f"{prefix}/" if prefix else "", delimiter=False):
                for item in page.objects:
                    click.echo(f"{item.size:>14} {json.dumps(item.key, ensure_ascii=False)}")
        finally:
            await backend.close()

    run(show())


def _line(name: str, entry: Entry) -> str:
    import stat

    time = datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC).astimezone().isoformat(" ", "seconds")
    return (
        f"{stat.filemode(entry.st_mode)} {entry.size:>14} {time} {name}{f' -> {entry.target}' if entry.target else ''}"
    )


def _ask(mount: Mounted) -> dict[str, Any]:
    from fsdriver.fuse_mount.control import PATIENCE, request

    answer: dict[str, Any] = {"source": mount.source, "mountpoint": mount.directory}
    try:
        answer.update(request(Path(mount.directory), "status", wait=PATIENCE))
    except FsdriverError as error:
        answer["error"] = str(error)
    except OSError as error:
        answer["error"] = str(BackendError(f"the daemon does not answer: {error}", mount.directory))
    return answer


def _show(answers: list[dict[str, Any]]) -> None:
    from fsdriver.cli.output import print_table

    rows = [
        (
            answer["mountpoint"],
            answer["source"],
            "no answer" if "error" in answer else str(answer.get("state", "mounted")),
            str(answer.get("pending", "")),
            str(answer.get("transport", "")),
            str(answer.get("passthrough", "")),
        )
        for answer in answers
    ]
    print_table(("mount point", "source", "state", "pending", "transport", "passthrough"), rows)
    for answer in answers:
        if "error" in answer:
            click.echo(f"fsdriver: {answer['error']}", err=True)
        if corrupt := sum(route.get("corrupt_answers", 0) for route in answer.get("routes", ())):
            click.echo(
                f"{answer['mountpoint']}: {corrupt:,} answers of the stores had damaged bytes, and were asked for again"
            )
        if buffered := sum(route.get("buffered", 0) for route in answer.get("routes", ())):
            click.echo(
                f"{answer['mountpoint']}: {buffered:,} time{'s' if buffered > 1 else ''} a file of direct:// was read or written"
                " through the page cache: its file system refuses direct I/O"
            )
        if disowned := answer.get("disowned", 0):
            click.echo(
                f"{answer['mountpoint']}: {disowned:,} files in staging were acknowledged, and the catalog that knew of them is"
                " gone: unmount, and run 'fsdriver fsck'"
            )
        for lost in answer.get("conflicts", ()):
            kept = (
                f"the bytes written here are kept as {_quoted(lost['kept'])}" if lost["kept"] else "that version stands"
            )
            click.echo(f"{answer['mountpoint']}: {_quoted(lost['path'])} was changed by another writer first; {kept}")
        for store, since in answer.get("out_of_reach", {}).items():
            began = datetime.fromtimestamp(since, UTC).astimezone().isoformat(" ", "seconds")
            click.echo(
                f"{answer['mountpoint']}: {store} is out of reach since {began}: what is known is served, changes wait"
            )
        cache = answer.get("cache", {})
        if cache.get("encryption", "off") != "off":
            unread = cache["unread"]
            others = (
                f"; {unread:,} bytes of it are not encrypted with this key, and go as room is needed" if unread else ""
            )
            click.echo(
                f"{answer['mountpoint']}: the cache is encrypted ({cache['encryption']}), what is being written (staging) is"
                f" not{others}"
            )
        for backend, text in answer.get("weaknesses", {}).items():
            click.echo(f"{answer['mountpoint']}: backend {backend}: {text}")
        failing = answer.get("failing", ())
        if failing:
            pending = answer["pending"]
            count = f"{len(failing)} of {pending:,} changes" if pending > 1 else "1 change"
            many = f"{count} {'fails and is' if len(failing) == 1 else 'fail and are'}"
            click.echo(f"{answer['mountpoint']}: {many} tried again; removing or renaming the file ends that:")
        for row in failing:
            click.echo(f"  {row['action']} {_quoted(row['path'])}: {row['error']}")


def _quoted(path: str) -> str:
    return json.dumps(path, ensure_ascii=not path.isprintable())
