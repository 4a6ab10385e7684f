"""The kernel transport: this process speaks the FUSE protocol itself, over /dev/fuse."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdriver.entry import Kind
from fsdriver.errors import FsdriverError

from . import device as devices
from .notify import Message, Notifier
from .operations import bind
from .passthrough import refusal, self_test
from .protocol import MINOR_EPOCH, InitFlag, Opcode
from .session import Session
from .synthetic import DIRECTORY, PROBE, Probe

if TYPE_CHECKING:
    import threading

    from .filesystem import FileSystem
    from .options import MountOptions
    from .transport import Expired

log = logging.getLogger(__name__)

INIT_PATIENCE: Final = 10.0
PROBE_SIZE: Final = 4096
PROBE_POLLS: Final = 100
PROBE_PAUSE: Final = 0.01


class KernelTransport:
    """See the module, and `transport.Transport`.

    Parameters
    ----------
    fs : FileSystem
    request : device.MountRequest
    options : MountOptions
    staging : Path
        Where the file of the self-test lies: on the file system that passthrough is to work with.
    on_end : callable
        Called when the mount is over.
    """

    def __init__(
        self,
        fs: FileSystem,
        request: devices.MountRequest,
        options: MountOptions,
        staging: Path,
        on_end: Callable[[], None],
    ) -> None:
        self._fs = fs
        self._request = request
        self._options = options
        self._staging = staging
        self._session = Session(-1, bind(fs, lambda: self._session), on_end)
        self._notifier: Notifier | None = None

    @property
    def ended(self) -> threading.Event:
        """See `transport.Transport`."""
        return self._session.ended

    # -- the beginning -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """See `transport.Transport`."""
        device = devices.open_and_mount(self._request)
        try:
            self._connect(device)
        except BaseException:  # an interrupt leaves no dead mount either
            devices.unmount(self._request.directory, lazy=True)
            raise

    def _connect(self, device: int) -> None:
        session = self._session
        session.device = self._fs.passthrough.device = device
        session.begin()
        if not session.ready.wait(INIT_PATIENCE) or session.failure:
            raise FsdriverError(session.failure or "the kernel did not begin to speak", self._request.directory)
        notifier = self._notifier = Notifier(device, expire_only=InitFlag.HAS_EXPIRE_ONLY in session.granted)
        self._fs.rereading.drop = lambda nodeids: notifier.send([Notifier.contents(nodeid) for nodeid in nodeids])
        devices.set_read_ahead(self._request.directory, self._options.read_ahead)
        self._try_passthrough(session)

    def _try_passthrough(self, session: Session) -> None:
        passthrough = self._fs.passthrough
        if passthrough.excluded:
            return
        if InitFlag.PASSTHROUGH not in session.granted:
            passthrough.disable("the kernel does not offer it (Linux 6.9 with CONFIG_FUSE_PASSTHROUGH does)")
        else:
            with tempfile.TemporaryFile(dir=self._staging) as file:
                reason = self._test_passthrough(file.fileno(), session)
            if reason:
                passthrough.disable(reason)
            else:
                passthrough.enabled, passthrough.reason = True, ""

    def _test_passthrough(self, descriptor: int, session: Session) -> str:
        os.pwrite(descriptor, b"P" * PROBE_SIZE, 0)
        passthrough = self._fs.passthrough
        try:
            passthrough.release(passthrough.register(descriptor))
        except OSError as error:
            return refusal(error)
        self._fs.probe = Probe(descriptor, self._fs.synthetic.ino + 100)
        try:
            return self_test(f"{self._request.directory}/{DIRECTORY}/{PROBE}", PROBE_SIZE, session.served)
        finally:
            self._await_probe_release()
            self._fs.probe = None

    def _await_probe_release(self) -> None:
        """close(2) does not wait for RELEASE, and the probe's file is about to go."""
        for _ in range(PROBE_POLLS):
            if not self._fs.passthrough.in_use:
                return
            time.sleep(PROBE_PAUSE)

    # -- while it is mounted -----------------------------------------------------------------------------------------

    def expire(self, known: Iterable[Expired], *, everything: bool = False) -> Future[None]:
        """See `transport.Transport`."""
        assert self._notifier is not None
        messages: list[Message] = []
        for one in known:
            messages += [self._notifier.entry(parent.nodeid, name) for parent, name in one.names]
            let_go = Notifier.contents if one.node.kind is Kind.DIRECTORY else Notifier.attributes
            messages.append(let_go(one.node.nodeid))
        if everything and self._session.minor >= MINOR_EPOCH:
            messages.append(Notifier.everything())
        return self._notifier.send(messages)

    def stop(self) -> None:
        """See `transport.Transport`."""
        self._fs.rereading.drop = None
        if self._notifier is not None:
            self._notifier.stop()

    def status(self) -> Mapping[str, Any]:
        """See `transport.Transport`."""
        session = self._session
        return {
            "in_flight": session.in_flight,
            "errors": session.errors,
            "notifications": self._notifier.sent if self._notifier else 0,
            "requests": {code.name: session.counts[code] for code in Opcode if session.counts[code]},
        }
