"""Filesystems of the fsspec face over a local route and over an S3 route, each with cache and state of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver import engine as engines
from fsdriver.filesystem import TierFileSystem
from fsdriver.testing.servers import S3Service

ROUTE = "data"
"""First part of all paths of `tier_local` and `tier_s3`."""


@pytest.fixture
def tier_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Cache, state and sockets of this test alone; engines are closed at its end."""
    monkeypatch.setenv("FSDRIVER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FSDRIVER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "run").mkdir(mode=0o700)
    TierFileSystem.clear_instance_cache()
    yield tmp_path
    for engine in list(engines._registry.values()):  # whatever the test opened, by whichever URL
        engine.close()
    TierFileSystem.clear_instance_cache()


@pytest.fixture
def local_config(tier_places: Path) -> dict[str, Any]:
    """A tree of one route, ``/data``, over a directory."""
    bucket = tier_places / "bucket"
    bucket.mkdir()
    return {"backend": {"disk": {"url": f"file://{bucket}"}}, "route": [{"path": f"/{ROUTE}", "tiers": ["disk"]}]}


@pytest.fixture
def s3_config(tier_places: Path, s3_server: S3Service, s3_bucket: str) -> dict[str, Any]:
    """A tree of one route, ``/data``, over a prefix of a bucket."""
    backend = {
        "url": f"s3://{s3_bucket}/prefix",
        "endpoint": s3_server.endpoint,
        "access_key_id": s3_server.access_key,
        "secret_access_key": s3_server.secret_key,
    }
    return {"backend": {"hot": backend}, "route": [{"path": f"/{ROUTE}", "tiers": ["hot"]}]}


@pytest.fixture
def stack_config(s3_config: dict[str, Any], tier_places: Path) -> dict[str, Any]:
    """A tree of one route, ``/data``, over a directory and a prefix of a bucket as its colder tier."""
    disk = tier_places / "tier"
    disk.mkdir()
    backends = {"disk": {"url": f"file://{disk}"}, "cold": s3_config["backend"]["hot"]}
    return {"backend": backends, "route": [{"path": f"/{ROUTE}", "tiers": ["disk", "cold"]}]}


@pytest.fixture
def tier_local(local_config: dict[str, Any]) -> TierFileSystem:
    """The fsspec face over a local route."""
    return TierFileSystem(config=local_config)


@pytest.fixture
def tier_s3(s3_config: dict[str, Any]) -> TierFileSystem:
    """The fsspec face over an S3 route."""
    return TierFileSystem(config=s3_config)


@pytest.fixture
def s3_options(s3_server: S3Service) -> dict[str, str]:
    """Storage options of s3fs that reach the server: what users of chained URLs already have."""
    return {"key": s3_server.access_key, "secret": s3_server.secret_key, "endpoint_url": s3_server.endpoint}


@pytest.fixture
def config_file(tier_places: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes a configuration as the user's own file."""

    def write(config: dict[str, Any]) -> Path:
        lines = []
        for name, backend in config["backend"].items():
            lines += [f"[backend.{name}]", *(f'{key} = "{value}"' for key, value in backend.items())]
        for route in config["route"]:
            lines += ["[[route]]", f'path = "{route["path"]}"', f"tiers = {route['tiers']!r}"]
        path = tier_places / "home" / ".config" / "fsdriver" / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))
        return path

    return write
