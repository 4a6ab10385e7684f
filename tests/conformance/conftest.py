"""Mounted trees for the conformance tests, made as the mount tests make theirs."""

from __future__ import annotations

import pytest

from tests.mount.conftest import MountedTree, fuse, make_tree, module_trees  # noqa: F401 - fixtures


@pytest.fixture(scope="module", params=["local", "daemon", "s3"])
def posix_tree(request, module_trees) -> MountedTree:  # noqa: F811
    """Local with passthrough, local without it, S3."""
    return make_tree(request.param, module_trees, request).mount()
