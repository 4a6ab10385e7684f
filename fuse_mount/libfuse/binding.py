"""The Python package that binds libfuse: mfusepy, else fusepy; and what of libfuse they leave out.

Both have a class ``FUSE`` whose constructor mounts, serves until the mount ends, and returns. mfusepy works with libfuse 2 and 3,
fusepy with libfuse 2 only.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from ctypes.util import find_library
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from fsdriver.errors import Unsupported

if TYPE_CHECKING:
    from .calls import Context

log = logging.getLogger(__name__)

CAP_AUTO_INVAL_DATA: Final = 1 << 12
CAP_HANDLE_KILLPRIV: Final = 1 << 20
"""``FUSE_CAP_*`` of libfuse 3 that are on unless taken back."""
_NO_ID: Final = (1 << 32) - 1
MAX_BACKGROUND: Final = 64
THREADS: Final = 64
"""Requests answered at a time, from libfuse 3.12 on; before, libfuse makes as many threads as it needs."""
DEVICE_PASSED_SINCE: Final = (3, 3)
THREADS_SINCE: Final = (3, 12)


class Binding:
    """libfuse through one of the packages.

    Attributes
    ----------
    context : callable
        User, group and process of the request that the calling thread answers.
    library : str
        Names and versions, for ``status``.
    takes_device : bool
        It serves a device that this process has mounted itself.
    """

    def __init__(self, package: Any, name: str) -> None:
        self._package = package
        self._bytes_only = not hasattr(package, "fuse_version_major")
        self.context: Context = package.fuse_get_context
        self._version = (
            (2, 0) if self._bytes_only else (int(package.fuse_version_major), int(package.fuse_version_minor))
        )
        shown = "2" if self._bytes_only else ".".join(map(str, self._version))
        self.library = f"libfuse {shown} through {name} {version(name)}"
        self.takes_device = sys.platform.startswith("linux") and self._version >= DEVICE_PASSED_SINCE

    def serve(self, operations: Any, mountpoint: str, options: Mapping[str, str | bool]) -> None:
        """Mount and serve, in the calling thread, until the mount ends.

        Raises
        ------
        RuntimeError
            libfuse could not mount; it says why on stderr.
        """
        given: dict[str, Any] = dict(options)
        if self._version >= THREADS_SINCE:
            given["max_threads"] = THREADS
        if self._bytes_only:
            self._package.FUSE(
                _Latin(operations), os.fsencode(mountpoint).decode("latin-1"), raw_fi=True, encoding="latin-1", **given
            )
        else:
            _extended(self._package)(operations, mountpoint, raw_fi=True, **given)


def load() -> Binding:
    """The binding that is installed here.

    Raises
    ------
    Unsupported
        Neither package is, or they find no libfuse.
    """
    reasons = []
    for name, module in (("mfusepy", "mfusepy"), ("fusepy", "fuse")):
        try:
            if name == "mfusepy":
                _prefer_libfuse3()
            return Binding(importlib.import_module(module), name)
        except ModuleNotFoundError:
            reasons.append(f"{name} is not installed (pip install 'fsdriver[libfuse]')")
        except (OSError, AttributeError, NotImplementedError) as error:
            reasons.append(f"{name}: {error} (apt-get install libfuse3-3, or your system's package)")
    raise Unsupported("the libfuse transport is not available here: " + "; ".join(reasons))


def _prefer_libfuse3() -> None:
    """On Linux mfusepy takes version 2 where both are; version 3 is the one that is maintained."""
    chosen = {"FUSE_LIBRARY_PATH", "FUSE_LIBRARY_NAME"} & os.environ.keys()
    if sys.platform.startswith("linux") and not chosen and find_library("fuse3"):
        os.environ["FUSE_LIBRARY_NAME"] = "fuse3"


def configure(connection: Any) -> None:
    """Settings of a connection (``struct fuse_conn_info``, not known with fusepy).

    The kernel keeps pages until a file is opened again, and clears set-user-ID bits itself.
    """
    if connection is not None:
        connection.want &= ~(CAP_AUTO_INVAL_DATA | CAP_HANDLE_KILLPRIV)
        connection.max_background = MAX_BACKGROUND


def _extended(package: Any) -> Any:
    """The class of mfusepy with the calls of libfuse 3 that it does not pass on."""

    class Extended(package.FUSE):
        def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> Any:
            return self.operations.rename(_text(old), _text(new), flags)

        def chmod_fuse_3(self, path: bytes | None, mode: int, fip: Any) -> Any:
            return self.operations.chmod(_text(path), mode, _open_file(fip))

        def chown_fuse_3(self, path: bytes | None, uid: int, gid: int, fip: Any) -> Any:
            return self.operations.chown(_text(path), _id(uid), _id(gid), _open_file(fip))

        def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> Any:
            return self.operations.truncate(_text(path), length, _open_file(fip))

        def utimens_fuse_3(self, path: bytes | None, times: Any, fip: Any) -> Any:
            given = [
                package.time_of_timespec(one, use_ns=True) for one in (times.contents.actime, times.contents.modtime)
            ]
            return self.operations.utimens(_text(path), tuple(given), _open_file(fip))

        def lseek(self, path: bytes | None, offset: int, whence: int, fip: Any) -> Any:
            return self.operations.lseek(_text(path), offset, whence, fip.contents)

        def copy_file_range(
            self, _source: bytes | None, source_fi: Any, start: int, _target: bytes | None, target_fi: Any, at: int,
            length: int, flags: int,
        ) -> Any:  # fmt: skip
            return self.operations.copy_file_range(source_fi.contents, start, target_fi.contents, at, length, flags)

    return Extended


def _open_file(pointer: Any) -> Any:
    """The open file that a call is about, if it is; its path may be unknown by then."""
    return pointer.contents if pointer else None


def _id(number: int) -> int:
    """A user or group; -1 (leave it) comes as an unsigned number."""
    return -1 if number == _NO_ID else number


class _Latin:
    """Operations as fusepy calls them: ``operations(name, …)``, with texts that stand for bytes one by one.

    fusepy decodes strictly, and names on a store need not be UTF-8.
    """

    def __init__(self, operations: Any) -> None:
        self._operations = operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def __call__(self, name: str, *arguments: Any) -> Any:
        given = [_text(one.encode("latin-1")) if isinstance(one, str) else one for one in arguments]
        return _to_latin(getattr(self._operations, name)(*given))


def _to_latin(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    if isinstance(value, list):
        return [_to_latin(one) for one in value]
    if isinstance(value, Iterator):
        return ((_to_latin(name), *rest) for name, *rest in value)
    return value


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "surrogateescape")
