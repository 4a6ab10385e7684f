"""What a job has done, in a file of its own, so that the next run does the rest only.

One JSON text a line: first what the job is, then the path and mark of each file that is done. A line that a kill has cut
short is dropped: that file is done again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from fsdriver.errors import ConfigError

FORMAT: Final = 1


class Journal:
    """Append-only; one job at a time has it open.

    Parameters
    ----------
    path : Path
    job : mapping of str to str
        What tells this job from others: a journal of another one is refused.

    Raises
    ------
    ConfigError
        It is no journal, or of another job, or another process uses it.
    """

    def __init__(self, path: Path, job: Mapping[str, str]) -> None:
        self.done: dict[str, str] = {}
        self._path = path
        self._file: IO[bytes] = open(path, "a+b")  # noqa: SIM115 - closed by `close`
        try:
            self._begin(dict(job))
        except BaseException:  # whatever it is, the file does not stay open
            self._file.close()
            raise

    def _begin(self, job: dict[str, str]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "another job is using this journal; wait for it, or give another file", self._name
            ) from None
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        cut = len(lines.pop())
        if not lines:
            self._file.truncate(0)
            self._write([{"format": FORMAT, "job": job}])
            return
        try:
            head, *rest = map(json.loads, lines)
            known = head["format"], head["job"]
            self.done = {one["path"]: one["mark"] for one in rest}
        except (ValueError, KeyError, TypeError):
            raise ConfigError("this is no journal of a job; give another file", self._name) from None
        if known[0] != FORMAT:
            raise ConfigError(f"a newer version wrote this journal (format {known[0]})", self._name)
        if known[1] != job:
            raise ConfigError(f"this is the journal of another job ({_told(known[1])}); give another file", self._name)
        if cut:
            self._file.truncate(self._file.tell() - cut)

    @property
    def _name(self) -> str:
        return str(self._path)

    def add(self, done: Mapping[str, str]) -> None:
        """Note files that are done: their marks by path."""
        self.done |= done
        self._write([{"path": path, "mark": mark} for path, mark in done.items()])

    def _write(self, lines: list[dict[str, object]]) -> None:
        self._file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self._file.flush()

    def close(self) -> None:
        """Have it on the disk, and let others use it."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _told(job: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in job.items())
