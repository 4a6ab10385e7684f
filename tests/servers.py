"""A proxy that misbehaves on demand, to stand between a client and a real server."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` whose target contains ``match``.

    ``status`` answers at once; ``status`` 0 closes the connection without an answer, after the server has carried out
    the request if ``carried_out``; ``hang`` never answers; ``hold`` waits for `FaultyProxy.release`, then forwards.
    """

    times: int
    status: int = 503
    method: str | None = None
    match: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    carried_out: bool = False
    hang: bool = False
    hold: bool = False


@dataclass(frozen=True)
class Seen:
    """One request that reached the proxy."""

    method: str
    target: str
    headers: dict[str, str]


class FaultyProxy:
    """Forwards HTTP requests to ``upstream``, except for those a `Fault` is waiting for; counts them and the bytes sent."""

    def __init__(self, upstream: str) -> None:
        self._host = urlsplit(upstream).netloc
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._released = threading.Event()
        self.held = 0
        self.seen: list[Seen] = []
        self.open_connections = 0
        self.most_connections = 0
        self.sent = 0
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, times: int, status: int = 503, **options) -> None:
        """Arm a fault; see `Fault`."""
        with self._lock:
            self._faults.append(Fault(times, status, **options))

    def heal(self) -> None:
        """Forget the faults that have not happened."""
        with self._lock:
            self._faults.clear()

    def count(self, method: str, match: str = "") -> int:
        """Requests of a method seen so far whose target contains ``match``."""
        return sum(1 for one in self.seen if one.method == method and match in one.target)

    def next_fault(self, method: str, target: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.method in {None, method} and fault.match in target:
                    fault.times -= 1
                    return fault
        return None

    def forward(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, list, bytes]:
        connection = http.client.HTTPConnection(self._host)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in {"expect", "connection"}:
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def release(self) -> None:
        """Let the requests go on that are held, and all later ones."""
        with self._lock:
            self._faults = [fault for fault in self._faults if not fault.hold]
        self._released.set()

    def wait_for_release(self) -> None:
        with self._lock:
            self.held += 1
        self._released.wait()
        with self._lock:
            self.held -= 1

    def wait_for_stop(self) -> None:
        self._stopping.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def setup(self) -> None:
        super().setup()
        with self.owner._lock:
            self.owner.open_connections += 1
            self.owner.most_connections = max(self.owner.most_connections, self.owner.open_connections)

    def finish(self) -> None:
        with self.owner._lock:
            self.owner.open_connections -= 1
        super().finish()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        with self.owner._lock:
            self.owner.seen.append(Seen(self.command, self.path, headers))
        fault = self.owner.next_fault(self.command, self.path)
        if fault is None:
            self._answer(*self.owner.forward(self.command, self.path, headers, body))
        elif fault.hold:
            self.owner.wait_for_release()
            self._answer(*self.owner.forward(self.command, self.path, headers, body))
        elif fault.hang:
            self.owner.wait_for_stop()
            self.close_connection = True
        elif fault.status == 0:
            if fault.carried_out:
                self.owner.forward(self.command, self.path, headers, body)
            self.close_connection = True
        else:
            self._answer(fault.status, list(fault.headers.items()), fault.body)

    def _answer(self, status: int, headers: list, body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True  # the client wants it no more
                return
            with self.owner._lock:
                self.owner.sent += len(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing: the tests look at `FaultyProxy.seen`."""
