"""Keys that change while a process runs: the old ones stop working, and nobody restarts anything."""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fsdriver.backends import Backend, RetryPolicy, open_backend
from fsdriver.config import BackendConfig
from fsdriver.errors import AccessDenied
from fsdriver.runtime import on_loop, run
from fsdriver.testing.servers import S3Service, SeaweedFS
from tests.servers import FaultyProxy
from tests.waiting import wait_for

SOURCES = ["file", "variables", "profile", "process"]


@dataclass
class Rotating:
    """A server whose only key is exchanged, and the places that a process finds it in."""

    server: SeaweedFS
    service: S3Service
    places: Path
    monkeypatch: pytest.MonkeyPatch

    def rotate(self) -> None:
        """The server knows another key, and the one before no more."""
        self.service = replace(self.service, access_key=secrets.token_hex(8), secret_key=secrets.token_hex(16))
        identities = self.server.directory / "identities.json"
        table = json.loads(identities.read_text())
        (admin,) = (one for one in table["identities"] if one["name"] == "admin")
        admin["credentials"] = [{"accessKey": self.service.access_key, "secretKey": self.service.secret_key}]
        identities.write_text(json.dumps(table))
        os.kill(self.service.pid, signal.SIGHUP)
        wait_for(self._known)

    def _known(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.service.client().list_buckets()
        except ClientError:
            return False
        return True

    def tell(self, source: str) -> dict[str, Any]:
        """Put the key where ``source`` says; returns what the configuration needs."""
        key, secret = self.service.access_key, self.service.secret_key
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            self.monkeypatch.delenv(name, raising=False)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            self.monkeypatch.setenv(name, str(self.places / name))
        if source == "file":
            _write(self.places / "id", key)
            _write(self.places / "secret", secret)
            return {
                "access_key_id": {"file": str(self.places / "id")},
                "secret_access_key": {"file": str(self.places / "secret")},
            }
        if source == "variables":
            self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
            self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        elif source == "profile":
            text = f"[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n"
            _write(self.places / "AWS_SHARED_CREDENTIALS_FILE", text)
        else:
            answer = json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret})
            program = self.places / "program"
            _write(program, f"#!{sys.executable}\nprint({answer!r})\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
            _write(self.places / "AWS_CONFIG_FILE", f"[default]\ncredential_process={program}\n")
        return {}


def _write(path: Path, text: str) -> None:
    """As tools do that rotate keys: a new file takes the name."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    one = SeaweedFS(tmp_path_factory.mktemp("weed"))
    service = one.start()
    yield one
    os.kill(service.pid, signal.SIGKILL)  # nobody needs its data
    one.stop()


@pytest.fixture
def rotating(server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rotating:
    service = server.running()
    assert service is not None
    made = Rotating(server, service, tmp_path, monkeypatch)
    made.rotate()
    return made


async def _use(backend: Backend, name: str) -> None:
    """Requests of every client: whole objects, listings, copies, deletions."""
    await on_loop()
    await backend.put(name, b"bytes")
    assert bytes(await backend.get(name)) == b"bytes"
    assert name in [info.key async for page in backend.list("") for info in page.objects]
    await backend.copy(name, f"{name}.copy")
    await backend.delete(f"{name}.copy", if_version=(await backend.head(f"{name}.copy")).version)


@pytest.mark.parametrize("engine", ["auto", "fsspec"])
@pytest.mark.parametrize("source", SOURCES)
def test_new_keys_are_found_while_the_old_ones_fail(rotating: Rotating, engine: str, source: str) -> None:
    bucket = rotating.service.create_bucket()
    given = rotating.tell(source)
    config = {"url": f"s3://{bucket}", "endpoint": rotating.service.endpoint, "engine": engine, **given}
    backend, _ = open_backend("b", BackendConfig.model_validate(config))
    try:
        run(_use(backend, "first"))
        rotating.rotate()
        rotating.tell(source)
        run(_use(backend, "second"))
        if backend.reads_now:
            info = run(_head(backend, "second"))
            assert bytes(backend.get_now("second", info.size, info.version) or b"") == b"bytes"
    finally:
        run(_close(backend))


async def _close(backend: Backend) -> None:
    await on_loop()
    await backend.close()


async def _head(backend: Backend, key: str) -> Any:
    await on_loop()
    return await backend.head(key)


@pytest.mark.parametrize("engine", ["auto", "fsspec"])
def test_a_denial_is_tried_once_more_with_other_keys_and_not_again(rotating: Rotating, engine: str) -> None:
    bucket = rotating.service.create_bucket()
    given = rotating.tell("file")
    with FaultyProxy(rotating.service.endpoint) as proxy:
        config = {"url": f"s3://{bucket}", "endpoint": proxy.endpoint, "engine": engine, **given}
        backend, _ = open_backend("b", BackendConfig.model_validate(config))
        body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        run(_use(backend, "first"))
        proxy.fail(100, 403, method="PUT", match="/same", body=body)
        with pytest.raises(AccessDenied, match="ExpiredToken"):
            run(_put(backend, "same"))
        assert proxy.count("PUT", "/same") == 1
        proxy.fail(100, 403, method="PUT", match="/other", body=body)
        rotating.rotate()
        rotating.tell("file")
        with pytest.raises(AccessDenied, match="ExpiredToken"):
            run(_put(backend, "other"))
        assert proxy.count("PUT", "/other") <= 2
        run(_close(backend))


async def _put(backend: Backend, key: str) -> None:
    await on_loop()
    await backend.put(key, b"x")


def test_keys_that_are_written_out_are_tried_once(s3_server: S3Service, s3_bucket: str) -> None:
    with FaultyProxy(s3_server.endpoint) as proxy:
        config = BackendConfig.model_validate(
            {"url": f"s3://{s3_bucket}", "endpoint": proxy.endpoint, "access_key_id": "no", "secret_access_key": "no"}
        )
        backend, _ = open_backend("b", config)
        with pytest.raises(AccessDenied):
            run(_put(backend, "key"))
        assert proxy.count("PUT", "/key") == 1
        assert backend.retry == RetryPolicy(attempts=4, deadline=30.0)
        run(_close(backend))


def test_a_reference_that_cannot_be_read_for_a_moment_ends_nothing(rotating: Rotating, tmp_path: Path) -> None:
    bucket = rotating.service.create_bucket()
    given = rotating.tell("file")
    config = {"url": f"s3://{bucket}", "endpoint": rotating.service.endpoint, **given}
    backend, _ = open_backend("b", BackendConfig.model_validate(config))
    run(_use(backend, "first"))
    (tmp_path / "secret").unlink()
    backend.settings.credentials._looked = float("-inf")  # as a second later
    run(_use(backend, "second"))
    run(_close(backend))
