"""Running a job on an executor."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tqdm import tqdm

from fsdriver.bulk.flight import in_flight
from fsdriver.bulk.job import Item, Job
from fsdriver.bulk.journal import Journal
from fsdriver.bulk.report import Failure, Report

JOBS: Final = 8
BATCH_FILES: Final = 16
BATCH_BYTES: Final = 8 << 20
"""Small files go to a worker together: another process, or a cluster, takes a millisecond or more for each piece of work."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker tells of one file."""

    item: Item
    bytes: int = 0
    failure: Failure | None = None


def run(
    job: Job,
    *,
    executor: Executor | None = None,
    jobs: int = JOBS,
    resume: str | os.PathLike[str] | None = None,
    pattern: str | None = None,
    progress: bool = False,
) -> Report:
    """Do a job, on every file it has; what fails is reported, and does not stop the others.

    Parameters
    ----------
    job : Job
    executor : Executor, optional
        Threads, processes, or a cluster (``dask.distributed.Client.get_executor()``), whose workers must reach the same
        files and stores. By default ``jobs`` threads.
    jobs : int
        Pieces of work (one large file, or up to 16 small ones) under way at a time.
    resume : path, optional
        A journal: what an earlier run of this job noted there is not done again, unless the source has changed since.
    pattern : str, optional
        Only files whose path below the source matches (`fnmatch`: ``*.bin`` in any directory, ``train/*``).
    progress : bool
        A bar on stderr, if that is a terminal.

    Returns
    -------
    Report

    Raises
    ------
    ConfigError
        The journal is of another job.
    NotFound
        The source does not exist.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: it must be at least 1")
    began = time.monotonic()
    report = Report()
    with ExitStack() as stack:
        journal = None if resume is None else stack.enter_context(Journal(Path(resume), job.describe()))
        todo = _what_is_left(job, journal, pattern, report)
        if executor is None:
            executor = stack.enter_context(ThreadPoolExecutor(jobs, "fsdriver-bulk"))
        bar = stack.enter_context(
            tqdm(total=sum(item.size for item in todo), unit="B", unit_scale=True, disable=None if progress else True)
        )
        for outcomes in _outcomes(job, executor, todo, jobs):
            _note(outcomes, report, journal)
            bar.update(sum(one.item.size for one in outcomes))
    report.left = len(todo) - report.files - len(report.failures)
    report.seconds = time.monotonic() - began
    return report


def _what_is_left(job: Job, journal: Journal | None, pattern: str | None, report: Report) -> list[Item]:
    todo = []
    for item in job.items(report.skipped):
        if pattern is not None and not fnmatchcase(item.path, pattern):
            continue
        if journal is not None and journal.done.get(item.path) == item.mark and job.stands(item):
            report.before += 1
        else:
            todo.append(item)
    return todo


class _TakesNoMore(Exception):
    """The executor was closed, or has lost its workers."""


def _outcomes(job: Job, executor: Executor, todo: Sequence[Item], jobs: int) -> Iterator[Sequence[Outcome]]:
    def submit(batch: Sequence[Item]) -> Future[Sequence[Outcome]]:
        try:
            return executor.submit(perform, job, batch)
        except RuntimeError as error:
            raise _TakesNoMore from error

    with contextlib.suppress(_TakesNoMore):
        for batch, future in in_flight(_batches(todo), submit, jobs):
            try:
                outcomes = future.result()
            except (Exception, CancelledError) as error:  # noqa: BLE001 - each executor has its own for a worker that died
                why = f"its worker ended before it was done: {str(error) or type(error).__name__}"
                outcomes = [Outcome(item, failure=Failure(item.path, type(error).__name__, why)) for item in batch]
            yield outcomes


def perform(job: Job, batch: Sequence[Item]) -> Sequence[Outcome]:
    """What a worker does: some files of a job, one after another."""
    return [_one(job, item) for item in batch]


def _one(job: Job, item: Item) -> Outcome:
    try:
        return Outcome(item, job.do(item))
    except Exception as error:  # noqa: BLE001 - whatever a file has, others are done all the same, and the report says what
        return Outcome(item, failure=Failure(item.path, type(error).__name__, str(error)))


def _batches(items: Iterable[Item]) -> Iterator[Sequence[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= BATCH_FILES or size + item.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch


def _note(outcomes: Sequence[Outcome], report: Report, journal: Journal | None) -> None:
    done = {one.item.path: one.item.mark for one in outcomes if one.failure is None}
    if journal is not None and done:
        journal.add(done)
    report.files += len(done)
    report.bytes += sum(one.bytes for one in outcomes)
    report.failures += [one.failure for one in outcomes if one.failure is not None]
