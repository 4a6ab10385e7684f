"""What a job is: the files it has, and what is done with each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a job.

    Attributes
    ----------
    path : str
        Relative to the job's source; unique in the job.
    size : int
        Bytes.
    mark : str
        Changes when the source does: a file that is done is done again then.
    """

    path: str
    size: int
    mark: str


class Job(Protocol):
    """Picklable: it goes to the workers with each piece of work, which may be other processes or machines."""

    def describe(self) -> Mapping[str, str]:
        """What tells it from other jobs, for its journal."""

    def items(self, skipped: list[str]) -> Iterator[Item]:
        """Its files; what is left out, and why, is appended to ``skipped``."""

    def do(self, item: Item) -> int:
        """Do one file, in a worker; returns bytes moved."""

    def stands(self, item: Item) -> bool:
        """Whether what an earlier run did of it is still there, as far as that is quickly seen."""
