"""What a piece of work costs, in numbers that do not depend on how busy the machine is: requests, bytes, processor time."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

import psutil

from benchmarks.mounts import Mount
from fsdriver.testing.servers import S3Service

_SAMPLE: Final = re.compile(
    r'^SeaweedFS_s3_(request_total|bucket_traffic_\w+?_bytes_total)\{bucket="([^"]*)"(.*?)\} (\S+)$', re.MULTILINE
)
_TYPE: Final = re.compile(r'type="(\w+)"')


class Counters:
    """A context manager; afterwards `facts` has what happened meanwhile.

    Parameters
    ----------
    service : S3Service
        Its own counters tell requests and bytes, so that they are counted the same way for every client.
    bucket : str
    mount : Mount, optional
        Whose daemon is watched too.
    """

    def __init__(self, service: S3Service, bucket: str, mount: Mount | None = None) -> None:
        self._service = service
        self._bucket = bucket
        self._mount = mount
        self._before: tuple[Counter[str], Counter[str], float, float] | None = None
        self.requests: Counter[str] = Counter()
        self.fuse: Counter[str] = Counter()
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._before = self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._before is not None
        after = self._look()
        self.requests = after[0] - self._before[0]
        self.fuse = after[1] - self._before[1]
        actions = {name: count for name, count in self.requests.items() if not name.startswith("bytes ")}
        self.facts = {"S3": _listed(actions) or "nothing"}
        for name in sorted(self.requests.keys() - actions.keys()):
            self.facts[f"MB {name.removeprefix('bytes ')}"] = self.requests[name] / 1e6
        if self.fuse:
            self.facts["FUSE"] = _listed(self.fuse)
        if self._mount is not None:
            self.facts["daemon CPU s"] = after[2] - self._before[2]
        self.facts["S3 server CPU s"] = after[3] - self._before[3]

    @property
    def bytes_sent(self) -> float:
        """Bytes of objects the server sent."""
        return self.requests["bytes sent"]

    def _look(self) -> tuple[Counter[str], Counter[str], float, float]:
        mount = self._mount
        server = cpu_seconds(psutil.Process(self._service.pid))
        return (
            server_counts(self._service, self._bucket),
            Counter(mount.fuse_requests()) if mount else Counter(),
            mount.cpu_seconds() if mount else 0.0,
            server,
        )


def server_counts(service: S3Service, bucket: str) -> Counter[str]:
    """Requests by kind, and ``bytes sent`` and ``bytes received``, of one bucket since the server started."""
    with urllib.request.urlopen(service.metrics) as answer:
        text = answer.read().decode()
    counts: Counter[str] = Counter()
    for name, of, labels, value in _SAMPLE.findall(text):
        if of == bucket:
            kind = _TYPE.search(labels)
            counts[kind[1] if kind else f"bytes {name.split('_')[2]}"] += round(float(value))
    return counts


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _listed(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
