"""What the server of a mount asks of a transport: the way by which requests of the kernel reach the tree.

Both transports serve the same `operations`; they differ in who speaks the kernel's protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from fsdriver.errors import ConfigError

if TYPE_CHECKING:
    import threading

    from .inodes import Node

KERNEL: Final = "kernel"
LIBFUSE: Final = "libfuse"
AUTO: Final = "auto"
CHOICES: Final = (AUTO, KERNEL, LIBFUSE)


@dataclass(frozen=True, slots=True)
class Expired:
    """What the kernel must ask for again: the attributes of a node, and the names (directory, name) that lead to it."""

    node: Node
    names: Sequence[tuple[Node, str]] = ()


class Transport(Protocol):
    """One connection to the kernel."""

    @property
    def ended(self) -> threading.Event:
        """The mount is over."""

    def start(self) -> None:
        """Mount, and return when requests are answered; nothing stays mounted when it raises."""

    def expire(self, known: Iterable[Expired], *, everything: bool = False) -> Future[None]:
        """Make the kernel let go of what it keeps; the future ends when it has.

        Parameters
        ----------
        everything : bool
            All other names too, those known to be absent among them.
        """

    def stop(self) -> None:
        """Tell the kernel nothing more: the mount is ending."""

    def status(self) -> Mapping[str, Any]:
        """Its part of ``fsdriver status``."""


def choose(wanted: str, platform: str = sys.platform) -> tuple[str, str]:
    """The transport to use, and why.

    Raises
    ------
    ConfigError
        The wanted one does not exist on this system.
    """
    linux = platform.startswith("linux")
    if wanted == KERNEL and not linux:
        raise ConfigError(
            f"the kernel transport needs Linux, this is {platform}; leave it out or take {LIBFUSE}", wanted
        )
    if wanted != AUTO:
        return wanted, "asked for"
    return (KERNEL, "the default on Linux") if linux else (LIBFUSE, f"the only one on {platform}")
