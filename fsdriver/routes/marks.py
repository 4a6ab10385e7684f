"""Marks that processes leave in attribute objects: "records may be missing here, ask the objects themselves".

A mark is the journal's own number, the process's, and when that process began. A process that was killed leaves its marks
behind. What it owed is in the journal, and whoever carries that out removes them; nobody else does, because nobody else can
know what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def own_marks(marks: Sequence[str], owner: str, *, present: bool) -> tuple[str, ...]:
    """``marks`` with or without that of this process, and without those of dead processes of the same journal."""
    mine = f"{owner}{_process(os.getpid())}"
    kept = {mark for mark in marks if mark != mine and (not mark.startswith(owner) or _lives(mark[len(owner) :]))}
    return tuple(sorted(kept | {mine} if present else kept))


def _process(pid: int) -> str:
    """Number and time of birth of a process (field 22 of proc_pid_stat(5)); only the number where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid}-{fields[19]}"


def _lives(process: str) -> bool:
    pid = process.partition("-")[0]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return _process(int(pid)) == process
