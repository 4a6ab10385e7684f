"""A parent that has read from S3 forks workers that read too, as data loaders do."""

from __future__ import annotations

import logging
import os

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
