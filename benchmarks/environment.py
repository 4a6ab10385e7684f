"""What the figures run on: an S3 server, data, mounts, directories; all of it removed at the end.

Everything lies below one fresh directory. Mounts are made by the real command, ``fsdriver mount``, with a cache and a
state of their own, so that no figure meets what another has left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import obstore
import psutil
from obstore.store import S3Store

from benchmarks.counters import Counters
from benchmarks.mounts import SIDES, Mount, places
from fsdriver.config import from_url
from fsdriver.engine import Engine, open_engine
from fsdriver.routes.services import WriteMode
from fsdriver.testing.servers import REGION, S3Service, SeaweedFS, weed_binary

MIB: Final = 1 << 20
GIB: Final = 1 << 30
PART: Final = 16 * MIB
LARGE: Final = MIB
"""Bytes of a file that is removed as soon as it is not needed any more."""


class WrongContent(Exception):
    """What was read, or what is in the bucket, is not what was written."""


@dataclass(frozen=True, slots=True)
class Large:
    """An object, and a plain file with the same bytes."""

    bucket: str
    key: str
    size: int
    path: Path


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
        self._kept = contextlib.ExitStack()
        self._cached: dict[str, Mount] = {}
        self._mounts: list[Mount] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._kept.close()
        finally:
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

    def counters(self, mount: Mount | None = None, bucket: str = "") -> Counters:
        """What a run costs; see `Counters`."""
        return Counters(self.service, mount.bucket if mount else bucket, mount)

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

    @contextlib.contextmanager
    def bucket(self) -> Iterator[str]:
        """A fresh bucket; removed at the end with all that is in it, which the server answers for full buckets too."""
        bucket = self.service.create_bucket()
        try:
            yield bucket
        finally:
            self.service.client().delete_bucket(Bucket=bucket)

    def large(self, size: int = GIB) -> Large:
        """An object of ``size`` random bytes and a plain file with the same; made once, then shared by the figures."""
        path = self.directory / f"large{size}"
        if path.name not in self._objects:
            write_random(path, size)
            self._objects[path.name] = self.service.create_bucket()
            upload(self.service.client(), self._objects[path.name], "large", path)
        return Large(self._objects[path.name], "large", size, path)

    def small_objects(self, name: str, objects: Mapping[str, bytes]) -> str:
        """Bucket with small objects; made once for each ``name``."""
        if name not in self._objects:
            store = self.store(bucket := self.service.create_bucket())
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda item: obstore.put(store, item[0], item[1]), objects.items()))
            self._objects[name] = bucket
        return self._objects[name]

    # -- directories, mounts, engines --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A fresh directory on the disk of the caches."""
        path = Path(tempfile.mkdtemp(dir=self.directory))
        try:
            yield path
        finally:
            remove_large(path)

    @contextlib.contextmanager
    def mount(self, bucket: str, side: str = "fsdriver", keep: Path | None = None) -> Iterator[Mount]:
        """Mount a bucket as ``side`` does, with a fresh cache and state, or those left in ``keep``."""
        with contextlib.ExitStack() as stack:
            home = keep or stack.enter_context(self.folder())
            point = stack.enter_context(self.folder())
            mount = stack.enter_context(SIDES[side](self.service, bucket, home, point))
            self._mounts.append(mount)
            try:
                yield mount
            finally:
                mount.peak_memory()

    def cached(self, side: str) -> Mount:
        """A mount that has read the large object once and keeps it; one for all workloads that read it again."""
        if side not in self._cached:
            self._cached[side] = self._kept.enter_context(self.mount(self.large().bucket, side))
        return self._cached[side]

    def peaks(self) -> list[float]:
        """Largest resident memory of each daemon of ours so far, MiB."""
        return [mount.peak_memory() for mount in self._mounts if mount.control is not None]

    def mounts(self, stack: contextlib.ExitStack) -> Callable[[str], Mount]:
        """One mount for each side of a workload, made when first asked for, each on a bucket of its own."""
        made: dict[str, Mount] = {}

        def of(side: str) -> Mount:
            if side not in made:
                made[side] = stack.enter_context(self.mount(stack.enter_context(self.bucket()), side))
            return made[side]

        return of

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


def remove_large(directory: Path) -> None:
    """Remove the large files of a directory; the small ones go with all the rest, at the end.

    ext4 looks at every inode that was freed in the last minutes before it takes one (``recently_deleted`` in its ialloc.c):
    after thousands of small files were removed, making files takes several times as long for whoever comes next.
    """
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                path = Path(folder, name)
                if path.lstat().st_size >= LARGE:
                    path.unlink()


def write_random(path: Path, size: int) -> None:
    """A file of ``size`` random bytes, no part like another, on the disk (not only in pages) when this returns."""
    block = secrets.token_bytes(PART)
    with path.open("wb") as file:
        for start in range(0, size, PART):
            file.write((start.to_bytes(8, "little") + block[8:])[: size - start])
        file.flush()
        os.fsync(file.fileno())


def upload(client: Any, bucket: str, key: str, path: Path) -> None:
    """A file as an object, in parts."""
    identity = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    with path.open("rb") as file:
        for number, body in enumerate(iter(lambda: file.read(PART), b""), 1):
            answer = client.upload_part(Bucket=bucket, Key=key, UploadId=identity, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=identity, MultipartUpload={"Parts": parts})


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
        "versions": _versions(),
    }


def _versions() -> str:
    seaweedfs = subprocess.run([weed_binary(), "version"], capture_output=True, text=True, check=True).stdout.split()
    number = next(word for word in seaweedfs if word[0].isdigit() and "." in word)
    return f"SeaweedFS {number}, obstore {obstore.__version__}, pyarrow {metadata.version('pyarrow')}"
