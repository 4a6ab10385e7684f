"""What the daemon does for and against the machine it runs on."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fsdriver.fuse_mount.service import OneLine


@pytest.mark.parametrize("name", ["a\nERROR fsdriver: forged", "a\r\x1b[2J", "a\u2028b", "caf\udce9"])
def test_a_name_forges_no_line_of_the_log(name: str) -> None:
    record = logging.LogRecord("fsdriver", logging.WARNING, "", 1, "%s: failed", (name,), None)
    line = OneLine("%(levelname)s %(message)s").format(record)
    assert line.isprintable()
    line.encode()
    assert line.startswith(("WARNING a", "WARNING caf"))


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.LogRecord("fsdriver", logging.ERROR, "", 1, "failed", (), (type(error), error, None))
    assert OneLine("%(message)s").format(record) == "failed\nValueError: x"


CRASH = """
import os, resource, sys
from fsdriver.fuse_mount.service import keep_secrets_in_memory
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
if sys.argv[1] == "closed":
    keep_secrets_in_memory()
os.abort()
"""


@pytest.mark.parametrize("kept", ["open", "closed"])
def test_a_daemon_that_crashes_leaves_no_core_file(tmp_path: Path, kept: str) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY and os.geteuid() != 0:
        pytest.skip("needs a limit that can be raised")
    process = subprocess.Popen([sys.executable, "-c", CRASH, kept], cwd=tmp_path)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -os.WTERMSIG(status)
    if kept == "open" and not os.WCOREDUMP(status):
        pytest.skip("this machine dumps nothing")
    assert os.WCOREDUMP(status) is (kept == "open")
    assert bool(list(tmp_path.glob("core*"))) is (kept == "open") or kept == "open"
