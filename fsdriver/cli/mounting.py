"""``mount`` and ``umount``, and the form in which mount(8) calls the first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from fsdriver.cli.mounts import PLACE
from fsdriver.cli.options import parse_options, prepare

_OF_MOUNT8: Final = frozenset({"auto", "noauto", "defaults", "user", "users", "nouser", "owner", "group", "nofail"})
"""Options of fstab that mount(8) itself acts on (mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS")."""
_OF_FSTAB: Final = ("x-", "X-", "comment=", "_netdev")


@click.command()
@click.argument("places", metavar="[URL] DIR", nargs=-1, required=True)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Mount the tree of this file; without it and without URL, the configuration found in the usual places.",
)
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="NAME=VALUE,…",
    help="Keys of the route, backend or cache, and mount options.",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "kernel", "libfuse"]),
    help="Who speaks the kernel's protocol; auto: this program on Linux, libfuse elsewhere.",
)
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground and log to stderr.")
def mount(
    places: tuple[str, ...], file: Path | None, options: tuple[str, ...], transport: str | None, foreground: bool
) -> int:
    """Mount URL, or the configured tree, at DIR; returns when it is usable."""
    if len(places) > 2:
        raise click.UsageError("too many places: give [URL] DIR")
    if "://" in places[-1]:
        raise click.UsageError(f"{places[-1]} is no directory: the URL comes first, then where to mount it")
    url = places[0] if len(places) == 2 else None
    given = parse_options(options)
    if transport is not None:
        given["transport"] = transport
    return _mount(url, file, Path(places[-1]), given, foreground=foreground)


@click.command()
@click.argument("directory", metavar="DIR", type=PLACE)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    help="Seconds for uploads; by default the drain_timeout of the mount (300).",
)
@click.option("--force", is_flag=True, help="Detach the mount if its daemon gives no answer.")
def umount(directory: Path, timeout: float | None, force: bool) -> int:
    """Upload what is pending and unmount DIR; what is not uploaded in time stays journaled, and the status is 1."""
    from fsdriver.fuse_mount.unmounting import unmount

    return unmount(directory, timeout, force=force)


@click.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("source")
@click.argument("directory", type=PLACE)
@click.option("-o", "options", multiple=True)
@click.option("-t", "kind", expose_value=False)
@click.option("-N", "namespace", expose_value=False)
@click.option("-s", "sloppy", is_flag=True, expose_value=False)
@click.option("-n", "no_mtab", is_flag=True, expose_value=False)
@click.option("-v", "verbose", is_flag=True, expose_value=False)
@click.option("-f", "fake", is_flag=True)
def mount_helper(source: str, directory: Path, options: tuple[str, ...], fake: bool) -> int:
    """Mount as ``/sbin/mount.fuse.fsdriver SOURCE DIR [-sfnv] [-N namespace] [-o options] [-t type]`` (mount(8)).

    SOURCE is a URL, a configuration file, or ``none`` for the configuration found in the usual places.
    """
    given = parse_options(options)
    kept = {name: value for name, value in given.items() if name not in _OF_MOUNT8 and not name.startswith(_OF_FSTAB)}
    if fake:
        return 0
    if source == "none":
        return _mount(None, None, directory, kept, foreground=False)
    if source.endswith(".toml"):
        return _mount(None, Path(source), directory, kept, foreground=False)
    return _mount(source, None, directory, kept, foreground=False)


def _mount(url: str | None, file: Path | None, directory: Path, options: dict[str, str], *, foreground: bool) -> int:
    config, mount_options = prepare(url, file, options)
    from fsdriver.fuse_mount.daemon import serve

    return serve(config, directory, options=mount_options, foreground=foreground)
