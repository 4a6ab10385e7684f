"""Another user of this machine, without privileges."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
UID = 65534


class User:
    """Runs commands as a user without privileges, with places of its own."""

    def __init__(self, home: Path, python: list[str], environment: dict[str, str]) -> None:
        self.home = home
        self.root = home / "mnt"
        self.bucket = home / "bucket"
        self._python = python
        self._environment = environment
        for place in (self.root, self.bucket):
            place.mkdir()
        for place in (home, self.root, self.bucket):
            os.chown(place, UID, UID)

    def start(self, *arguments: str, groups: Sequence[int] = (), **more: str) -> subprocess.Popen[str]:
        """Begin a program of Python; whoever starts it waits for its end."""
        folders = {f"FSDRIVER_{name}_DIR": str(self.home / name.lower()) for name in ("CACHE", "STATE", "RUNTIME")}
        return subprocess.Popen(
            [*self._python, *arguments],
            user=UID,
            group=UID,
            extra_groups=groups,
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **folders, **self._environment, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, timeout: float = 60, groups: Sequence[int] = (), **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of Python to its end."""
        with self.start(*arguments, groups=groups, **more) as process:
            try:
                out, err = process.communicate("", timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run tests of this folder."""
        places = ["-p", "no:cacheprovider", f"--basetemp={self.home / 'tests'}", f"--rootdir={REPOSITORY}"]
        return self.run("-m", "pytest", "-q", "-rfEs", *places, *arguments, timeout=900)

    def fsdriver(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "fsdriver", *arguments, **more)


def runs_as_user(python: str, environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", "import fsdriver.config, sys; sys.exit(sys.version_info < (3, 11))"],
            user=UID,
            group=UID,
            extra_groups=[],
            cwd="/",
            env=environment,
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0
