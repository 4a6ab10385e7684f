"""How the programs under test are described and called."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "scripts"
TIMEOUT = 150
"""Seconds for one call, only to end what hangs."""


@dataclass(frozen=True)
class Program:
    """One program, or several that belong together.

    ``steps(root, material)`` works in the empty directory ``root``, may read ``material``, and returns what it
    observed: equal on every file system. ``times``: it sets modification times, which are compared. ``varying``:
    patterns of the paths whose bytes differ from run to run. ``through``: also run on a route that writes through.
    ``libfuse``: also run through the libfuse transport.
    """

    steps: Callable[[Path, Path], Any]
    times: bool = False
    varying: tuple[str, ...] = ()
    through: bool = False
    libfuse: bool = False

    @property
    def name(self) -> str:
        return self.steps.__name__


def call(*command: str | Path, cwd: Path, check: bool = True, **environment: str) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", "HOME": tempfile.gettempdir(), "TZ": "UTC", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=TIMEOUT,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def script(name: str, *arguments: str | int | Path, cwd: Path) -> str:
    """Standard output of one of the programs of this folder."""
    return call(sys.executable, SCRIPTS / name, *map(str, arguments), cwd=cwd)
