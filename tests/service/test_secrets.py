"""Secrets stay where they are: in no log, error, representation or pickle; and nothing is sent to who cannot prove who it is."""

from __future__ import annotations

import logging
import pickle
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fsdriver.backends import Backend, open_backend
from fsdriver.config import BackendConfig, Config, from_url
from fsdriver.errors import ConfigError, FsdriverError, Unreachable
from fsdriver.filesystem import TierFileSystem
from fsdriver.runtime import on_loop, run
from tests.servers import FaultyProxy

KEY, SECRET, TOKEN = "AKIDOFNOBODY", "sEcReTwOrDs0123456789", "ToKeNwOrDs9876543210"
ENGINES = ["auto", "fsspec"]


def config(endpoint: str, **more: Any) -> BackendConfig:
    table = {"url": "s3://bucket", "endpoint": endpoint, "retries": 0, "timeout": 5, "access_key_id": KEY,
             "secret_access_key": SECRET, "session_token": TOKEN}  # fmt: skip
    return BackendConfig.model_validate({**table, **more})


async def _everything(backend: Backend) -> list[FsdriverError]:
    """The errors of one request of each kind."""
    await on_loop()

    async def listing() -> None:
        async for _ in backend.list("p/"):
            pass

    requests = (
        backend.head("k"), backend.get("k"), backend.put("k", b"x"), backend.put("d/", b""), listing(),
        backend.copy("k", "l"), backend.delete("k", if_version="v"), backend.check(),
    )  # fmt: skip
    errors = []
    for request in requests:
        try:
            await request
        except FsdriverError as error:
            errors.append(error)
    await backend.close()
    return errors


def messages(errors: list[FsdriverError]) -> str:
    return "\n".join(f"{error} {error!r} {error.args}" for error in errors)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("failure", ["closed", "refused", "denied"])
def test_no_error_and_no_log_tells_a_secret(engine: str, failure: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fsdriver")
    with FaultyProxy("http://127.0.0.1:1") as proxy:
        echo = f"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message><Canonical>{TOKEN}</Canonical></Error>"
        proxy.fail(1000, 403 if failure == "denied" else 0, body=echo.encode())
        endpoint = "http://127.0.0.1:1" if failure == "refused" else proxy.endpoint
        backend, _ = open_backend("b", config(endpoint, engine=engine))
        errors = run(_everything(backend))
    assert len(errors) == 8
    said = messages(errors) + caplog.text + repr(backend.settings if engine == "auto" else backend)
    for secret in (SECRET, TOKEN, "X-Amz-Signature", "X-Amz-Credential"):
        assert secret not in said
    trace = "".join("".join(traceback.format_exception(error)) for error in errors)
    assert SECRET not in trace
    assert "X-Amz-Signature" not in trace


def test_representations_pickles_and_json_hold_references_only(
    tier_places: Path, s3_server: Any, s3_bucket: str
) -> None:
    file = tier_places / "secret"
    file.write_text(s3_server.secret_key)
    backend = {
        "url": f"s3://{s3_bucket}", "endpoint": s3_server.endpoint, "access_key_id": s3_server.access_key,
        "secret_access_key": {"file": str(file)},
    }  # fmt: skip
    fs = TierFileSystem(config={"backend": {"b": backend}, "route": [{"path": "/", "tiers": ["b"]}]})
    fs.pipe_file("/f", b"x")
    for shown in (repr(fs), fs.to_json(), str(fs.__dict__.get("storage_options")), pickle.dumps(fs).decode("latin-1")):
        assert s3_server.secret_key not in shown
    assert pickle.loads(pickle.dumps(fs)).cat_file("/f") == b"x"


def test_a_written_secret_is_masked_wherever_a_configuration_is_shown() -> None:
    written = Config(backend={"b": config("https://h", storage_options={"secret": SECRET, "anon": False})})
    for shown in (repr(written), str(written), written.model_dump_json(), str(written.backend["b"].access_key_id)):
        assert SECRET not in shown
        assert TOKEN not in shown


@pytest.mark.parametrize("url", [f"s3://{KEY}:{SECRET}@bucket", f"ftp://u:{SECRET}@h/x", f"http://u:{SECRET}@h"])
def test_a_password_in_a_url_or_an_endpoint_is_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as raised:
        from_url(url)
    assert SECRET not in str(raised.value)
    if url.startswith("http"):
        with pytest.raises(ConfigError, match="user name or password") as raised:
            from_url("s3://b", {"endpoint": url})
        assert SECRET not in str(raised.value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ConfigError, match="user name or password") as raised:
            open_backend("b", BackendConfig(url="s3://b"))
        assert SECRET not in str(raised.value)


# -- the network -------------------------------------------------------------------------------------------------------


class _Collector(BaseHTTPRequestHandler):
    """Answers everything, or sends it on to ``elsewhere``, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.server.seen.append(dict(self.headers.items()))  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        elsewhere = self.server.elsewhere  # type: ignore[attr-defined]
        self.send_response(307 if elsewhere else 200)
        if elsewhere:
            self.send_header("Location", f"{elsewhere}{self.path}")
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, elsewhere: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Collector)
        self.seen: list[dict[str, str]] = []
        self.elsewhere = elsewhere

    def handle_error(self, *_: object) -> None:
        """A client that does not trust us hangs up."""


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts servers, and ends them."""
    started = []

    def start(elsewhere: str = "", tls: ssl.SSLContext | None = None) -> _Server:
        server = _Server(elsewhere)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_cannot_prove_who_it_is_gets_no_request(engine: str, serve: Any, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server = serve(tls=context)
    backend, _ = open_backend("b", config(f"https://127.0.0.1:{server.server_port}", engine=engine))
    assert backend.get_now("k", 1, "v") is None
    errors = run(_everything(backend))
    assert len(errors) == 8
    assert all(isinstance(error, Unreachable) for error in errors), messages(errors)
    assert server.seen == []


@pytest.mark.parametrize("engine", ENGINES)
def test_no_signature_goes_to_where_a_server_redirects_to(engine: str, serve: Any) -> None:
    thief = serve()
    server = serve(f"http://localhost:{thief.server_port}")
    backend, _ = open_backend("b", config(f"http://127.0.0.1:{server.server_port}", engine=engine))
    backend.get_now("k", 1, "v")
    run(_everything(backend))
    assert 0 < len(server.seen) < 50
    sent = [name.lower() for headers in thief.seen for name in headers]
    assert "authorization" not in sent
