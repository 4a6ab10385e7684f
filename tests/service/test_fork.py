"""A parent that has read from S3 forks workers that read too, as data loaders do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from fsdriver.backends import open_backend
from fsdriver.backends.s3fs_backend import S3fsBackend
from fsdriver.errors import BackendError
from tests.service.backend_suite import run
from tests.service.test_backends import s3_config

pytestmark = pytest.mark.service


def in_child(work) -> int:
    """Fork, run ``work`` in the child, and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_four_forked_workers_read_what_the_parent_wrote(s3_server, s3_bucket):
    config = s3_config(s3_server, s3_bucket)
    parent, _ = open_backend("parent", config)
    run(parent.put("data", b"content" * 1000))
    assert bytes(run(parent.get("data", 0, 7))) == b"content"

    def work():
        records = []
        logging.getLogger("fsdriver.backends.opening").addFilter(lambda record: records.append(record) or False)
        with pytest.raises(BackendError, match="forked"):
            run(parent.get("data"))
        with pytest.raises(BackendError, match="forked"):
            run(parent.check())
        for _ in range(2):
            backend, _ = open_backend("child", config)
            assert isinstance(backend, S3fsBackend)
            assert bytes(run(backend.get("data", 7, 14))) == b"content"
            run(backend.close())
        assert len(records) == 1

    children = [in_child(work) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert bytes(run(parent.get("data", 0, 7))) == b"content"
    run(parent.close())


PARENT = """
import os, sys
import fsspec
import obstore
from obstore.store import MemoryStore

if "known" in sys.argv:
    import fsdriver.filesystem
obstore.put(MemoryStore(), "a", b"of the program itself")
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with fsspec.open(sys.argv[1], "rb") as file:
    os._exit(file.read() != b"content")
"""


@pytest.mark.parametrize("ours", ["known", "unknown"])
def test_a_worker_reads_though_its_parent_used_obstore_by_itself(s3_server, s3_bucket, tier_places, ours):
    """The parent may know nothing of this package."""
    s3_server.client().put_object(Bucket=s3_bucket, Key="data", Body=b"content")
    command = [sys.executable, "-c", PARENT, f"tier::s3://{s3_bucket}/data", ours]
    done = subprocess.run(
        command, env={**os.environ, **s3_server.environment()}, timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "already used obstore" in done.stderr) == (0, True), done.stderr
