"""The group of all commands, and how their errors become one line and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from fsdriver import __version__
from fsdriver.cli.caching import evict, pin, unpin, warm
from fsdriver.cli.configuration import config
from fsdriver.cli.doctor import doctor
from fsdriver.cli.install import install_system
from fsdriver.cli.integrity import fsck, verify
from fsdriver.cli.mounting import mount, mount_helper, umount
from fsdriver.cli.recovering import recover
from fsdriver.cli.tiers import explain, move, sweep
from fsdriver.cli.transfers import download, upload
from fsdriver.cli.tree import ls, refresh, status, sync

FAILED = 1
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fsdriver")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def commands(debug: bool) -> None:
    """Object stores as one ordinary file tree."""


for command in (
    mount,
    umount,
    status,
    refresh,
    sync,
    warm,
    evict,
    pin,
    unpin,
    move,
    explain,
    sweep,
    ls,
    upload,
    download,
    verify,
    fsck,
    recover,
    config,
    doctor,
    install_system,
    mount_helper,
):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0, or what the command says; 1 after an error, 2 after a mistake in the arguments, 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status: object = commands.main(given, prog_name="fsdriver", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("fsdriver: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if "--debug" in given:
            traceback.print_exc()
        click.echo(f"fsdriver: {error}", err=True)
        return FAILED
    return status if isinstance(status, int) else 0
