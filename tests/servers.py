"""A proxy that misbehaves on demand, to stand between a client and a real server."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)
"""``struct linger``: closing sends RST, not FIN (socket(7), SO_LINGER)."""
PIECES = 20
"""How many times a second a slow request is read from."""


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` whose target contains ``match``; of ``every`` n-th only.

    ``status`` answers at once; ``status`` 0 closes the connection without an answer (``reset``: with RST), after the
    server has carried out the request if ``carried_out``; ``hang`` never answers; ``hold`` waits for
    `FaultyProxy.release`, then forwards. ``answer`` spoils the server's answer: it stops half way and stays (``stall``),
    is ``cut`` there, or ``reset``; it says and has fewer bytes than there are (``short``), promises more (``long``), or has
    a wrong byte (``corrupt``). ``spoil`` puts a wrong byte into the request. ``rate`` reads that at so many bytes a second.
    """

    times: int
    status: int = 503
    method: str | None = None
    match: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    carried_out: bool = False
    reset: bool = False
    hang: bool = False
    hold: bool = False
    answer: Literal["", "stall", "cut", "reset", "short", "long", "corrupt"] = ""
    spoil: bool = False
    rate: int = 0
    every: int = 1
    met: int = 0


@dataclass(frozen=True)
class Seen:
    """One request that reached the proxy."""

    method: str
    target: str
    headers: dict[str, str]


class FaultyProxy:
    """Forwards HTTP requests to ``upstream``, except for those a `Fault` is waiting for; counts them and the bytes sent.

    ``late`` has the status of what was held, and then forwarded.
    """

    def __init__(self, upstream: str, address: str = "127.0.0.1") -> None:
        self._address = address
        self._host = urlsplit(upstream).netloc
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._released = threading.Event()
        self.held = 0
        self.late: list[int] = []
        self.seen: list[Seen] = []
        self.injected: Counter[str] = Counter()
        self.open_connections = 0
        self.most_connections = 0
        self.sent = 0
        self._connections: set[socket.socket] = set()
        self._port = 0
        self._listen()
        self.endpoint = f"http://{address}:{self._port}"

    def _listen(self) -> None:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer((self._address, self._port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._released.set()
        if self._thread.is_alive():
            self._stop_listening()

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def refuse(self) -> None:
        """Be gone: connections are ended, new ones are refused."""
        self._stop_listening()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def accept(self) -> None:
        """Be there again, at the same address."""
        self._listen()
        self._thread.start()

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
                    fault.met += 1
                    if fault.met % fault.every:
                        continue
                    fault.times -= 1
                    self.injected[_name(fault)] += 1
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

    def keep(self, connection: socket.socket, *, opened: bool) -> None:
        with self._lock:
            (self._connections.add if opened else self._connections.discard)(connection)
            self.open_connections = len(self._connections)
            self.most_connections = max(self.most_connections, self.open_connections)


def _name(fault: Fault) -> str:
    """What a fault is counted as."""
    for name in ("hang", "hold", "rate", "spoil"):
        if getattr(fault, name):
            return name
    if fault.answer:
        return f"answer {fault.answer}"
    return str(fault.status) if fault.status else "reset" if fault.reset else "closed"


def _wrong(body: bytes) -> bytes:
    """With one bit of it turned."""
    half = len(body) // 2
    return body[:half] + bytes([body[half] ^ 0x20]) + body[half + 1 :] if body else body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # headers and body are two writes: the second would wait for a delayed acknowledgement
    )
    owner: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.owner.keep(self.connection, opened=True)

    def finish(self) -> None:
        self.owner.keep(self.connection, opened=False)
        with contextlib.suppress(OSError):  # it may have been reset
            super().finish()

    def _serve(self) -> None:
        fault = self.owner.next_fault(self.command, self.path)
        body = self._body(fault.rate if fault is not None else 0)
        headers = dict(self.headers.items())
        with self.owner._lock:
            self.owner.seen.append(Seen(self.command, self.path, headers))
        if fault is not None and fault.hold:
            self.owner.wait_for_release()
        if fault is not None and fault.spoil:
            body = _wrong(body)
        if fault is None or fault.hold or fault.rate or fault.spoil:
            answer = self.owner.forward(self.command, self.path, headers, body)
            if fault is not None and fault.hold:
                self.owner.late.append(answer[0])
            self._answer(*answer)
        elif fault.hang:
            self.owner.wait_for_stop()
            self.close_connection = True
        elif fault.answer:
            self._answer(*self.owner.forward(self.command, self.path, headers, body), spoilt=fault.answer)
        elif fault.status == 0:
            if fault.carried_out:
                self.owner.forward(self.command, self.path, headers, body)
            self._end(reset=fault.reset)
        else:
            self._answer(fault.status, list(fault.headers.items()), fault.body)

    def _body(self, rate: int) -> bytes:
        left = int(self.headers.get("Content-Length", 0))
        if not rate:
            return self.rfile.read(left)
        parts = []
        for start in itertools.count(0, max(1, rate // PIECES)):
            if start >= left:
                return b"".join(parts)
            parts.append(self.rfile.read(min(max(1, rate // PIECES), left - start)))
            time.sleep(1 / PIECES)
        raise AssertionError

    def _end(self, *, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()
        self.close_connection = True

    def _answer(self, status: int, headers: list, body: bytes, spoilt: str = "") -> None:
        if spoilt in {"stall", "cut", "reset"} and (not body or self.command == "HEAD"):
            # There is no half of it: what the client waits for is missing whole.
            if spoilt == "stall":
                self.owner.wait_for_stop()
            self._end(reset=spoilt == "reset")
            return
        half = len(body) // 2
        if spoilt == "short":
            body = body[:half]
        if spoilt == "corrupt" and body:
            body = _wrong(body)
        self.send_response_only(status)
        length = str(len(body) + (7 if spoilt == "long" else 0))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        partial = spoilt in {"stall", "cut", "reset"}
        try:
            self.wfile.write(body[:half] if partial else body)
        except ConnectionError:
            self.close_connection = True  # the client wants it no more
            return
        with self.owner._lock:
            self.owner.sent += half if partial else len(body)
        if spoilt == "stall":
            self.owner.wait_for_stop()
        if partial or spoilt == "long":
            self._end(reset=spoilt == "reset")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing: the tests look at `FaultyProxy.seen`."""
