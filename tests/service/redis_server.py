"""A real redis-server for tests, on a port of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

import pytest
import redis

from fsdriver.testing.servers import free_ports
from tests.waiting import wait_for


class RedisServer:
    """Started and stopped by the test; keeps its data in ``directory`` when asked to.

    Parameters
    ----------
    directory : Path
    persistent : bool
        Every change is on disk before it is answered.
    tls : dict, optional
        Files: ``ca``, ``certificate``, ``key``.
    options : dict
        Of redis.conf, such as ``requirepass``.
    """

    def __init__(
        self, directory: Path, *, persistent: bool = False, tls: dict[str, Path] | None = None, **options: str
    ) -> None:
        self.directory = directory
        self.tls = tls
        (self.port,) = free_ports(1)
        self._options = {
            "bind": "127.0.0.1",
            "port": "0" if tls else str(self.port),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes" if persistent else "no",
            "appendfsync": "always",
            **options,
        }
        if tls:
            self._options |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(tls["certificate"]),
                "tls-key-file": str(tls["key"]),
                "tls-ca-cert-file": str(tls["ca"]),
                "tls-auth-clients": "no",
            }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """For looking from outside."""
        secret = self._options.get("requirepass")
        ca = {"ssl_ca_certs": str(self.tls["ca"])} if self.tls else {}
        return redis.Redis.from_url(self.url, password=secret, **ca)

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed")
        arguments = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        log.close()
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        if self.tls:
            # redis-py leaves sockets open whose handshake fails; the server listens when it is ready.
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.port), 10):
                return True
            return False
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        """Kill it, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Let it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(19)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(18)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.resume()
        self.stop()
