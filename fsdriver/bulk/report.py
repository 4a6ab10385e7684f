"""What became of a job."""

from __future__ import annotations

from dataclasses import dataclass, field

from fsdriver.errors import BackendError


@dataclass(frozen=True, slots=True)
class Failure:
    """One file that failed.

    Attributes
    ----------
    path : str
        As the job names it.
    kind : str
        Class of the error, e.g. ``"NotFound"``.
    message : str
    """

    path: str
    kind: str
    message: str

    def __str__(self) -> str:
        return self.message if self.path in self.message else f"{self.path}: {self.message}"


@dataclass(slots=True)
class Report:
    """Counts of one run.

    Attributes
    ----------
    files, bytes : int
        Done in this run.
    before : int
        Files that an earlier run had done, by the journal.
    left : int
        Files that were not tried: the executor took no more work.
    skipped : list of str
        What is no regular file, and was left out.
    failures : list of Failure
    seconds : float
    """

    files: int = 0
    bytes: int = 0
    before: int = 0
    left: int = 0
    skipped: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Every file is done."""
        return not self.failures and not self.left

    def check(self) -> None:
        """Raise BackendError, which names the first failure, unless every file is done."""
        if self.failures:
            more = f" (and {len(self.failures) - 1:,} more)" if len(self.failures) > 1 else ""
            raise BackendError(f"{self.failures[0].kind}: {self.failures[0].message}{more}", self.failures[0].path)
        if self.left:
            raise BackendError(f"{self.left:,} files were not tried: the executor took no more work")
