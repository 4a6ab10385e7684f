"""``install-system``: what mount(8) and systemd need in system folders."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from fsdriver.errors import AlreadyExists, NotFound

MARK: Final = "installed by fsdriver install-system"
HELPERS: Final = ("sbin/mount.fuse.fsdriver", "sbin/mount.fsdriver")
UNITS: Final = "etc/systemd/system"
CONFIGURATION: Final = "etc/fsdriver"


@click.command()
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), help="Install below this folder instead of /."
)
@click.option("--uninstall", is_flag=True, help="Remove what was installed; configuration stays.")
def install_system(root: Path, uninstall: bool) -> None:
    """Install the helpers of mount(8) and the systemd units (as root)."""
    wanted = contents()
    for name, (text, mode) in wanted.items():
        path = root / name
        if uninstall:
            _remove(path)
        else:
            _write(path, text, mode)
    if not uninstall:
        (root / CONFIGURATION).mkdir(parents=True, exist_ok=True)
    if root == Path("/") and Path("/run/systemd/system").is_dir() and (systemctl := shutil.which("systemctl")):
        subprocess.run([systemctl, "daemon-reload"], check=True)


def contents() -> dict[str, tuple[str, int]]:
    """Text and mode of every file, by its path below the root."""
    program = command()
    helper = f'#!/bin/sh\n# {MARK}; called by mount(8).\nexec {shlex.join(program)} mount-helper "$@"\n'
    result = dict.fromkeys(HELPERS, (helper, 0o755))
    units = files("fsdriver") / "systemd"
    for unit in sorted(units.iterdir(), key=lambda item: item.name):
        # The unit that shows how to write a .mount is documentation: installed, it would mount a bucket nobody has.
        if unit.name.endswith(".service"):
            text = unit.read_text(encoding="utf-8").replace("/usr/bin/fsdriver", shlex.join(program))
            result[f"{UNITS}/{unit.name}"] = (f"# {MARK}\n{text}", 0o644)
    return result


def command() -> list[str]:
    """The command ``fsdriver`` of this installation, as a service without any PATH can call it."""
    script = Path(sys.executable).with_name("fsdriver")
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-P", "-m", "fsdriver"]


def _write(path: Path, text: str, mode: int) -> None:
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise AlreadyExists("this file is not ours and is left alone; move it away first", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    click.echo(f"installed {path}")


def _remove(path: Path) -> None:
    if not path.exists():
        return
    if MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise NotFound("this file is not ours and is left alone", str(path))
    path.unlink()
    click.echo(f"removed {path}")
