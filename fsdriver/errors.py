"""Every error fsdriver raises on purpose.

FsdriverError(OSError)
├── ConfigError                 EINVAL     a configuration value is missing, unknown or wrong (also a ValueError)
├── NotFound                    ENOENT     also a FileNotFoundError
├── AlreadyExists               EEXIST     also a FileExistsError
├── IsDirectory                 EISDIR     also an IsADirectoryError
├── NotDirectory                ENOTDIR    also a NotADirectoryError
├── DirectoryNotEmpty           ENOTEMPTY
├── InvalidName                 EINVAL     a name or key this tree cannot hold
├── NameTooLong                 ENAMETOOLONG
├── ReadOnly                    EROFS      the route, the mount or the credentials do not allow writing
├── CrossRoute                  EXDEV      a rename or link between two routes
├── Unsupported                 EOPNOTSUPP the backend or the route's policy has no such operation
├── NoSpace                     ENOSPC     cache, staging or store is full
├── TooManyLinks                ELOOP      symbolic links lead in a circle
├── Unsettled                   EBUSY      a file is written to by a program, so that no one state of it can be sent
├── Stale                       ESTALE     the object changed since it was read: a conditional request lost
└── BackendError                EIO        the store failed or answered nonsense
    ├── AccessDenied            EACCES     also a PermissionError: credentials are wrong or not sufficient
    ├── ContainerMissing        EIO        the bucket or root directory itself does not exist
    ├── Unreachable             EIO        no connection to the endpoint could be made or kept
    ├── Throttled               EIO        the store asked to slow down (429, 503)
    ├── TimedOut                ETIMEDOUT  also a TimeoutError: the deadline of the operation passed
    └── Corrupt                 EIO        bytes do not match their length or checksum

Every class is an OSError with the errno the mount answers, so no layer translates errors twice.
A message names the path or key, then the cause, then the way out.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar


class FsdriverError(OSError):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message : str
        What failed, why and what to do about it.
    path : str, optional
        The path, key or file concerned; becomes ``filename``.

    Attributes
    ----------
    applied : bool
        The change stands on this host and is journaled; the store does not have it yet.
    """

    errno_code: ClassVar[int] = errno.EIO
    applied: bool = False

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(self.errno_code, message)
        self.message = message
        if path is not None:
            self.filename = path

    def __str__(self) -> str:
        return f"{self.filename}: {self.message}" if self.filename else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.filename)


class ConfigError(FsdriverError, ValueError):
    """A configuration value is missing, unknown or wrong."""

    errno_code = errno.EINVAL


class NotFound(FsdriverError, FileNotFoundError):
    """No such file, directory or object."""

    errno_code = errno.ENOENT


class AlreadyExists(FsdriverError, FileExistsError):
    """The name is taken, and the caller asked for a new one."""

    errno_code = errno.EEXIST


class IsDirectory(FsdriverError, IsADirectoryError):
    """A file operation on a directory."""

    errno_code = errno.EISDIR


class NotDirectory(FsdriverError, NotADirectoryError):
    """A directory operation on something else."""

    errno_code = errno.ENOTDIR


class DirectoryNotEmpty(FsdriverError):
    """The directory still has entries."""

    errno_code = errno.ENOTEMPTY


class InvalidName(FsdriverError, ValueError):
    """A name or key that this tree cannot hold."""

    errno_code = errno.EINVAL


class NameTooLong(InvalidName):
    """A name over 255 bytes or a key over the store's limit."""

    errno_code = errno.ENAMETOOLONG


class ReadOnly(FsdriverError):
    """The route, the mount or the credentials do not allow writing."""

    errno_code = errno.EROFS


class CrossRoute(FsdriverError):
    """A rename or link between two routes."""

    errno_code = errno.EXDEV


class Unsupported(FsdriverError):
    """The backend or the route's policy has no such operation."""

    errno_code = errno.EOPNOTSUPP


class NoSpace(FsdriverError):
    """Cache, staging or store is full."""

    errno_code = errno.ENOSPC


class Unsettled(FsdriverError):
    """A file is being written to by a program, so that no one state of it can be sent."""

    errno_code = errno.EBUSY


class TooManyLinks(FsdriverError):
    """Symbolic links lead in a circle."""

    errno_code = errno.ELOOP


class Stale(FsdriverError):
    """The object changed since it was read: a conditional request lost."""

    errno_code = errno.ESTALE


class BackendError(FsdriverError):
    """The store failed, or answered something that cannot be right.

    Attributes
    ----------
    temporary : bool
        The same request may succeed if simply tried again.
    retry_after : float or None
        Seconds the store asked to wait before that.
    """

    errno_code = errno.EIO
    temporary: bool = False
    retry_after: float | None = None


class AccessDenied(BackendError, PermissionError):
    """Credentials are wrong or not sufficient."""

    errno_code = errno.EACCES


class ContainerMissing(BackendError):
    """The bucket, container or root directory itself does not exist."""


class Unreachable(BackendError):
    """No connection to the endpoint could be made or kept."""

    temporary = True


class Throttled(BackendError):
    """The store asked to slow down."""

    temporary = True


class TimedOut(BackendError, TimeoutError):
    """The deadline of the operation passed."""

    errno_code = errno.ETIMEDOUT
    temporary = True


class Corrupt(BackendError):
    """Bytes do not match their length or checksum."""
