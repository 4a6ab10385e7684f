"""A test that ends its worker fails; it holds up no other one, and what it had started ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
TESTS = """
import os, subprocess, pytest
from pathlib import Path

@pytest.mark.parametrize("number", range(20))
def test_numbers(number):
    if number == 12:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(__file__).with_name("pid").write_text(str(child.pid))
        os.abort()
"""


def test_a_worker_that_dies(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "load", "-p", "tests.leftovers", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 failed, 19 passed" in done.stdout
    child = Path("/proc", (tmp_path / "pid").read_text(), "cmdline")
    wait_for(lambda: not child.exists() or not child.read_bytes())
