"""Other processes with a cache on the same directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def program(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process; it prints when it is ready and ends when its input does."""
    setup = (
        "import sys; from pathlib import Path; from fsdriver.cache import DiskCache, ObjectKey\n"
        "cache = DiskCache(Path(sys.argv[1]), size=1 << 30, min_free=0)\n"
        "def ready(text='ready'): print(text, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", setup + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout
    return process.stdout.readline().strip()
