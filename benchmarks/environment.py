"""What the figures run on: an S3 server, data, mounts, directories; all of it removed at the end.

Everything lies below one fresh directory. Mounts are made by the real command, ``fsdriver mount``, with a cache and a
state of their own, so that no figure meets what another has left.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import obstore
import psutil
from obstore.store import S3Store

from fsdriver.config import from_url
from fsdriver.engine import Engine, open_engine
from fsdriver.services import WriteMode
from fsdriver.testing.servers import REGION, S3Service, SeaweedFS

MIB: Final = 1 << 20
GIB: Final = 1 << 30
PART: Final = 16 * MIB
COMMAND_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted tree.

    Attributes
    ----------
    directory : Path
        The mount point.
    cache : Path
        The daemon's cache directory.
    daemon : psutil.Process
    """

    directory: Path
    cache: Path
    daemon: psutil.Process
    _environ: Mapping[str, str]

    def status(self) -> dict[str, Any]:
        """What ``fsdriver status --json`` says of this mount."""
        text = _fsdriver(["status", "--json", str(self.directory)], self._environ)
        answer: dict[str, Any] = json.loads(text)[0]
        return answer

    def sync(self) -> None:
        """Wait until everything written is in the tiers."""
        _fsdriver(["sync", str(self.directory)], self._environ)

    def drop_pages(self) -> None:
        """Drop the kernel's pages of all cached files."""
        for folder, _, names in os.walk(self.cache):
            for name in names:
                drop_pages(Path(folder) / name)

    def peak_memory(self) -> float:
        """Largest resident memory of the daemon so far, MiB (VmHWM, proc(5))."""
        for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmHWM in /proc/PID/status")

    def cpu_seconds(self) -> float:
        """Processor time of the daemon so far."""
        return cpu_seconds(self.daemon)


class Environment:
    """See the module; a context manager.

    Parameters
    ----------
    parent : Path, optional
        A directory on a disk with some 20 GiB free; by default /var/tmp.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="fsdriver-bench-", dir=parent or "/var/tmp"))
        self._server = SeaweedFS(self.directory / "s3")
        self._service: S3Service | None = None
        self._objects: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- the store ---------------------------------------------------------------------------------------------------

    @property
    def service(self) -> S3Service:
        """The S3 server, started when it is first asked for."""
        if self._service is None:
            self._service = self._server.start()
            os.environ.update(self._service.environment())
        return self._service

    def server_cpu_seconds(self) -> float:
        """Processor time of the S3 server so far."""
        return cpu_seconds(psutil.Process(self.service.pid))

    def store(self, bucket: str) -> S3Store:
        """The bucket through obstore, with its own defaults."""
        service = self.service
        return S3Store(
            bucket,
            endpoint=service.endpoint,
            access_key_id=service.access_key,
            secret_access_key=service.secret_key,
            region=REGION,
            client_options={"allow_http": True},
        )

    def bucket(self) -> str:
        """A fresh bucket."""
        return self.service.create_bucket()

    def large_object(self, size: int) -> tuple[str, str]:
        """Bucket and key of an object of ``size`` random bytes; made once, then shared by the figures."""
        name = f"large {size}"
        if name not in self._objects:
            bucket = self.bucket()
            upload_random(self.service.client(), bucket, "large", size)
            self._objects[name] = bucket
        return self._objects[name], "large"

    def small_objects(self, name: str, objects: Mapping[str, bytes]) -> str:
        """Bucket with small objects; made once for each ``name``."""
        if name not in self._objects:
            store = self.store(bucket := self.bucket())
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda item: obstore.put(store, item[0], item[1]), objects.items()))
            self._objects[name] = bucket
        return self._objects[name]

    # -- directories and mounts --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A fresh directory on the disk of the caches."""
        path = Path(tempfile.mkdtemp(dir=self.directory))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def mount(self, url: str, *, keep: Path | None = None, **options: str) -> Iterator[Mount]:
        """Mount a URL with a fresh cache and state, or those left in ``keep``.

        Parameters
        ----------
        options
            Of ``fsdriver mount -o``.
        """
        with contextlib.ExitStack() as stack:
            home = keep or stack.enter_context(self.folder())
            point = stack.enter_context(self.folder())
            environ = os.environ | places(home)
            chosen = ",".join(f"{name}={value}" for name, value in ({"cache.size": "20GiB"} | options).items())
            _fsdriver(["mount", url, str(point), "-o", chosen], environ)
            stack.callback(_fsdriver, ["umount", str(point)], environ)
            yield Mount(point, home / "cache", daemon_of(point), environ)

    @contextlib.contextmanager
    def engine(self, url: str, *, write: WriteMode = "through", **options: str) -> Iterator[Engine]:
        """An engine in this process, with a fresh cache and state."""
        with self.folder() as home, self.variables(places(home)):
            engine = open_engine(from_url(url, options), write=write)
            try:
                yield engine
            finally:
                engine.close()

    @contextlib.contextmanager
    def variables(self, values: Mapping[str, str]) -> Iterator[None]:
        """Environment variables of this process, for a while."""
        before = dict(os.environ)
        os.environ.update(values)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def requests_of(status: Mapping[str, Any]) -> dict[str, int]:
    """Requests to the stores by kind, of a mount's status."""
    total: dict[str, int] = {}
    for route in status["routes"]:
        for name, count in route["requests"].items():
            total[name] = total.get(name, 0) + count
    return total


def requests_between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What was asked of the stores between two `requests_of`, as facts of a figure."""
    return {
        f"{name} requests": count - before.get(name, 0) for name, count in after.items() if count != before.get(name)
    }


def places(home: Path) -> dict[str, str]:
    """The variables that give a process places of its own."""
    for name in ("cache", "state", "run"):
        (home / name).mkdir(mode=0o700, exist_ok=True)
    return {
        "FSDRIVER_CACHE_DIR": str(home / "cache"),
        "FSDRIVER_STATE_DIR": str(home / "state"),
        "FSDRIVER_RUNTIME_DIR": str(home / "run"),
    }


def _fsdriver(arguments: list[str], environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fsdriver", *arguments],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"fsdriver {' '.join(arguments)}: status {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


def daemon_of(point: Path) -> psutil.Process:
    """The process that serves a mount point: URL and directory stay in its command line."""
    found = [
        process
        for process in psutil.process_iter()
        if str(point) in _command_line(process) and process.pid != os.getpid()
    ]
    if not found:
        raise RuntimeError(f"no daemon serves {point}")
    return max(found, key=lambda process: process.create_time())


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def drop_pages(path: Path) -> None:
    """Write a file's dirty pages back and drop its clean ones from the kernel's page cache (posix_fadvise(2))."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def write_random(path: Path, size: int) -> None:
    """A file of ``size`` random bytes, on the disk (not only in pages) when this returns."""
    block = secrets.token_bytes(PART)
    with path.open("wb") as file:
        for start in range(0, size, PART):
            file.write(_variant(block, start)[: size - start])
        file.flush()
        os.fsync(file.fileno())


def upload_random(client: Any, bucket: str, key: str, size: int) -> None:
    """The same as an object, in parts."""
    block = secrets.token_bytes(PART)
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, size, PART), 1):
        body = _variant(block, start)[: size - start]
        answer = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def _variant(block: bytes, start: int) -> bytes:
    """No two parts are equal, so that no store and no file system can keep them once."""
    return start.to_bytes(8, "little") + block[8:]


def machine() -> dict[str, Any]:
    """What a reader of the figures needs to know of the machine."""
    release = os.uname()
    disk = next((part for part in psutil.disk_partitions(all=True) if part.mountpoint == "/"), None)
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / GIB),
        "kernel": ".".join(release.release.split("-")[0].split(".")[:2]),
        "architecture": release.machine,
        "python": sys.version.split()[0],
        "file_system": disk.fstype if disk else "unknown",
    }
