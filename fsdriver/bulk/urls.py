"""From a URL to the filesystem that its files are reached through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fsdriver.errors import ConfigError
from fsdriver.filesystem import TierFileSystem
from fsdriver.fsspec_face.targets import join

TREE: Final = "tier"


@dataclass(frozen=True, slots=True)
class Place:
    """A file or directory of a store, or of the configured tree; picklable.

    Attributes
    ----------
    fs : TierFileSystem
    root : str
        Its path there.
    url : str
    """

    fs: TierFileSystem
    root: str
    url: str

    def path(self, relative: str) -> str:
        """A path below it; "" is itself."""
        return join(self.root, relative)


def named(url: str, storage_options: Mapping[str, Any] | None = None) -> Place:
    """The place of a URL; what is written there is done when the store has it.

    Parameters
    ----------
    url : str
        ``tier://path`` of the configured tree, or a URL of a store, with or without ``tier::`` before it.
    storage_options : mapping
        Of the store; the tree has its own.

    Raises
    ------
    ConfigError
        It is no URL, or options are given for the tree.
    """
    text = url.removeprefix("tier::")
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ConfigError("this is no URL; write e.g. s3://bucket/prefix, file:///data or tier://path", url)
    if scheme == TREE:
        if storage_options:
            raise ConfigError("options are for URLs of stores; the tree is as it is configured", url)
        fs = TierFileSystem(write="through")
    else:
        options = dict(storage_options or {})
        try:
            fs = TierFileSystem(target_protocol=scheme, target_options=options, write="through")
        except (ValueError, ImportError) as error:  # fsspec's, for a scheme that it does not know or cannot serve
            raise ConfigError(str(error), url) from error
    root = fs._strip_protocol(text)  # noqa: SLF001 - fsspec's way from URL to path
    # "/" is the root of the local disk; "" would be the working directory.
    root = root.rstrip("/") or root
    fs._namespace.target(root)  # noqa: SLF001 - what is wrong with the options is told now, and not of every file
    return Place(fs, root, text.rstrip("/"))
