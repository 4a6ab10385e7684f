"""Uploaded staging files become cache files, at once or later."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from fsdriver.cache import DiskCache, ObjectKey
from fsdriver.writeback.journal import Journal
from fsdriver.writeback.sealing import Sealer
from fsdriver.writeback.staging import Staging

MIB = 1 << 20


def test_what_cannot_be_sealed_for_want_of_descriptors_is_sealed_later(tmp_path: Path) -> None:
    staging, cache = Staging(tmp_path / "cache" / ".staging"), DiskCache(tmp_path / "cache", size=MIB, min_free=0)
    sealer = Sealer("store", Journal(tmp_path / "catalog.db"), staging, cache)
    staged = staging.new(None)
    staged.fill(b"bytes")
    staging.release(staged)
    key = ObjectKey("store", "key", "version", 5)
    assert not cache.contains(key)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        sealer.seal("key", "version", staged.path)
        sealer.seal_left()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not cache.contains(key)
    sealer.seal_left()
    assert cache.contains(key)
    assert not staged.path.exists()
    cache.close()
