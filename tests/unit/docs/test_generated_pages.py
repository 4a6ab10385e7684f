"""The generated pages say what the code and the tests say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_generated_pages_are_not_stale():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_docs.py", "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
