"""Fixtures of a real S3 server, one for the whole test run, shared by all its worker processes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from fsdriver.testing.servers import S3Service, SeaweedFS

_WORKER_INPUT = "fsdriver_s3_directory"
_directory = pytest.StashKey[Path]()


def pytest_configure(config):
    """Choose the server's directory: the controller's, which hands it to its workers."""
    handed = getattr(config, "workerinput", {}).get(_WORKER_INPUT)
    config.stash[_directory] = Path(handed or tempfile.mkdtemp(prefix="fsdriver-s3-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell a worker process of pytest-xdist where the server lives."""
    node.workerinput[_WORKER_INPUT] = str(node.config.stash[_directory])


def pytest_unconfigure(config):
    """End the server when the controller (or a run without workers) ends."""
    if _directory in config.stash and not hasattr(config, "workerinput"):
        SeaweedFS(config.stash[_directory]).stop()
        shutil.rmtree(config.stash[_directory], ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(pytestconfig) -> S3Service:
    """A running S3 server: endpoint, access_key, secret_key, and an identity that may only read."""
    return SeaweedFS(pytestconfig.stash[_directory]).start()


@pytest.fixture
def s3_bucket(s3_server: S3Service) -> str:
    """Name of a fresh, empty bucket."""
    return s3_server.create_bucket()
