"""One job over many files, on threads, processes or a cluster: whatever is a `concurrent.futures.Executor`.

`upload`, `download`, `warm`, `verify` and `migrate` return a `Report` when all files have been tried; `run` does the same for
a `Job` of one's own. A job that is given a journal (``resume``) and ends early goes on where it was when it is run again.
"""

from __future__ import annotations

from fsdriver.bulk.job import Item, Job
from fsdriver.bulk.jobs import Download, Migrate, Upload, Verify, Warm, download, migrate, upload, verify, warm
from fsdriver.bulk.report import Failure, Report
from fsdriver.bulk.running import run

__all__ = [
    "Download",
    "Failure",
    "Item",
    "Job",
    "Migrate",
    "Report",
    "Upload",
    "Verify",
    "Warm",
    "download",
    "migrate",
    "run",
    "upload",
    "verify",
    "warm",
]
