"""Object stores as one ordinary file tree: a mount, fsspec URLs and a Python interface over one cache."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fsdriver")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
