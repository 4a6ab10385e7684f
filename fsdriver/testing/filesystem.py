"""A conformance suite for fsspec filesystems, beside fsspec's own: what programs do with files and that one leaves out.

Subclass `FilesystemSuite`, give it the fixtures ``fs`` (the filesystem) and ``root`` (an existing, empty directory of
it, without protocol), and run it with pytest. What a filesystem cannot do is said once, by a class attribute; its tests
are then skipped with that reason.

Examples
--------
>>> class TestMemory(FilesystemSuite):                                        # doctest: +SKIP
...     shares_between_processes = False
...     @pytest.fixture
...     def fs(self): return fsspec.filesystem("memory")
...     @pytest.fixture
...     def root(self, fs): fs.mkdir("/suite"); yield "/suite"; fs.rm("/suite", recursive=True)
"""

from __future__ import annotations

from typing import Any

import pytest

from fsdriver.testing.changing import ChangingTests
from fsdriver.testing.namespace import NamespaceTests
from fsdriver.testing.processes import ProcessTests
from fsdriver.testing.reading import ReadingTests
from fsdriver.testing.writing import WritingTests

__all__ = ["FilesystemSuite"]


class FilesystemSuite(ReadingTests, NamespaceTests, ChangingTests, WritingTests, ProcessTests):
    """See the module; the attributes are documented in `fsdriver.testing.base`."""

    @pytest.fixture
    def fs(self) -> Any:
        """The filesystem under test."""
        raise NotImplementedError("a subclass of FilesystemSuite gives the fixture 'fs'")

    @pytest.fixture
    def root(self, fs: Any) -> Any:
        """An existing, empty directory of it."""
        raise NotImplementedError("a subclass of FilesystemSuite gives the fixture 'root'")
