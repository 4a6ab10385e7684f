"""What the tests of a worker that died have left behind: ended and unmounted by the process that runs the workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

_MARK = "TESTS_WORKER"
"""In the environment of a worker, and so of all that it starts: which worker of which run it is."""


def pytest_configure(config: pytest.Config) -> None:
    if (worker := getattr(config, "workerinput", None)) is not None:
        os.environ[_MARK] = f"{worker['testrunuid']}-{worker['workerid']}"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    if not error:
        return
    mark = f"{_MARK}={node.workerinput['testrunuid']}-{node.workerinput['workerid']}"
    for pid in _marked(mark.encode()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    folder = node.config._tmp_path_factory.getbasetemp() / f"popen-{node.gateway.id}"
    for mountpoint in _mounts_below(folder):
        subprocess.run(["umount", "--lazy", mountpoint], check=False)


def _marked(mark: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def _mounts_below(folder: Path) -> list[str]:
    """Inner ones first."""
    with contextlib.suppress(FileNotFoundError):
        lines = Path("/proc/self/mounts").read_text().splitlines()
        points = [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]
        return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)
    return []
