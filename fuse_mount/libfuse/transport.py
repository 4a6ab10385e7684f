"""The libfuse transport as the server of a mount sees it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from fsdriver.errors import FsdriverError
from fsdriver.fuse_mount import device as devices
from fsdriver.fuse_mount.mounts import SUBTYPE
from fsdriver.fuse_mount.protocol import Opcode

from .binding import configure, load
from .operations import PathOperations

if TYPE_CHECKING:
    from fsdriver.fuse_mount.filesystem import FileSystem
    from fsdriver.fuse_mount.options import MountOptions
    from fsdriver.fuse_mount.transport import Expired

log = logging.getLogger(__name__)

INIT_PATIENCE: Final = 20.0
KEPT: Final[Mapping[str, str | bool]] = {
    "foreground": True,
    "use_ino": True,
    "entry_timeout": "0",
    "attr_timeout": "1",
    "negative_timeout": "0",
}
"""libfuse tells nobody which names the kernel keeps, so none are kept: every path is looked up in the daemon, which remembers
answers for the ``ttl`` of the route. Attributes are kept for what is reached by an open descriptor, for a second."""


class LibfuseTransport:
    """See the package, and `fuse_mount.transport.Transport`.

    Parameters
    ----------
    fs : FileSystem
    request : device.MountRequest
    options : MountOptions
    on_end : callable
        Called when the mount is over.
    """

    def __init__(
        self, fs: FileSystem, request: devices.MountRequest, options: MountOptions, on_end: Callable[[], None]
    ) -> None:
        self._binding = load()
        self._request = request
        self._options = options
        self._on_end = on_end
        self._operations = _Operations(fs, self._binding.context)
        self._ended = threading.Event()
        self._failure = ""
        fs.passthrough.disable("the libfuse transport has none")

    @property
    def ended(self) -> threading.Event:
        """See `fuse_mount.transport.Transport`."""
        return self._ended

    def start(self) -> None:
        """See `fuse_mount.transport.Transport`."""
        logging.getLogger("fuse").handlers = logging.getLogger("fsdriver").handlers
        mountpoint, options = self._request.directory, dict(KEPT)
        if self._binding.takes_device:
            mountpoint = f"/dev/fd/{devices.open_and_mount(self._request)}"
        else:
            options |= _mount_options(self._request)
        threading.Thread(target=self._serve, args=(mountpoint, options), name="libfuse", daemon=True).start()
        try:
            if not self._operations.ready.wait(INIT_PATIENCE) or self._ended.is_set():
                raise FsdriverError(self._failure or "the kernel did not begin to speak", self._request.directory)
            devices.set_read_ahead(self._request.directory, self._options.read_ahead)
        except BaseException:  # an interrupt leaves no dead mount either
            self._abandon()
            raise

    def _abandon(self) -> None:
        try:
            devices.unmount(self._request.directory, lazy=True)
        except OSError as error:
            log.debug("%s is not mounted: %s", self._request.directory, error)

    def _serve(self, mountpoint: str, options: Mapping[str, str | bool]) -> None:
        try:
            self._binding.serve(self._operations, mountpoint, options)
        except RuntimeError as error:
            self._failure = f"libfuse could not mount (status {error}); mount with --foreground to see what it says"
        finally:
            self._ended.set()
            self._operations.ready.set()
            self._on_end()

    def expire(self, known: Iterable[Expired], *, everything: bool = False) -> Future[None]:
        """See `fuse_mount.transport.Transport`; nothing that is reached by a path is kept (`KEPT`)."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def stop(self) -> None:
        """See `fuse_mount.transport.Transport`."""

    def status(self) -> Mapping[str, Any]:
        """See `fuse_mount.transport.Transport`."""
        calls = self._operations.calls
        return {
            "library": self._binding.library,
            "in_flight": calls.in_flight,
            "errors": calls.errors,
            "notifications": 0,
            "requests": {code.name: calls.counts[code] for code in Opcode if calls.counts[code]},
        }


class _Operations(PathOperations):
    """With the first call of a connection, which says that the kernel has begun to speak."""

    def __init__(self, fs: FileSystem, context: Callable[[], tuple[int, int, int]]) -> None:
        super().__init__(fs, context)
        self.ready = threading.Event()

    def init(self, _path: str) -> None:
        """As fusepy calls it, which shows no settings."""
        self.ready.set()

    def init_with_config(self, connection: Any, _config: Any) -> None:
        """As mfusepy calls it."""
        configure(connection)
        self.ready.set()


def _mount_options(request: devices.MountRequest) -> dict[str, str | bool]:
    """For a libfuse that mounts by itself."""
    names = {name: True for bit, name in devices.OPTION_NAMES.items() if request.flags & bit}
    return {
        "fsname": request.source.replace(",", "%2C"),
        "subtype": SUBTYPE,
        "default_permissions": True,
        "allow_other": request.allow_other,
        **names,
    }
