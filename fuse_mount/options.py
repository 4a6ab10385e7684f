"""The options of a mount itself, as ``-o`` gives them; keys of routes, backends and cache are not among them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fsdriver.config.values import parse_duration
from fsdriver.errors import ConfigError

from .device import MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from .transport import AUTO, CHOICES

_FLAGS: Final[Mapping[str, tuple[int, bool]]] = {
    "ro": (MS_RDONLY, True),
    "rw": (MS_RDONLY, False),
    "nosuid": (MS_NOSUID, True),
    "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True),
    "dev": (MS_NODEV, False),
    "noexec": (MS_NOEXEC, True),
    "exec": (MS_NOEXEC, False),
    "noatime": (MS_NOATIME, True),
    "atime": (MS_NOATIME, False),
}
_SWITCHES: Final = {"allow_other", "passthrough", "default_permissions"}
_VALUES: Final = {"fsname", "max_read", "read_ahead", "transport", "drain_timeout"}
LEAST_READ: Final = 4096
DEFAULT_FLAGS: Final = MS_NOSUID | MS_NODEV


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount.

    Attributes
    ----------
    flags : int
        ``MS_*`` of mount(2). Set-user-ID programs and devices are off unless asked for: what is on a bucket is not trusted.
    allow_other : bool
        Users other than the one who mounts may enter; modes and owners are checked in any case.
    passthrough : bool
        Try it (``passthrough=off`` does not).
    fsname : str
        Shown as the device; empty: the URL.
    max_read : int
        Largest READ request, in bytes.
    read_ahead : int
        What the kernel reads ahead, in KiB; set for this mount alone, by root only.
    transport : str
        One of `transport.CHOICES`.
    drain_timeout : float
        Seconds that uploads get when the mount ends.
    """

    flags: int = DEFAULT_FLAGS
    allow_other: bool = False
    passthrough: bool = True
    fsname: str = ""
    max_read: int = 1 << 20
    read_ahead: int = 4096
    transport: str = AUTO
    drain_timeout: float = 300.0

    @property
    def read_only(self) -> bool:
        """Mounted ``ro``."""
        return bool(self.flags & MS_RDONLY)

    @classmethod
    def parse(cls, options: Mapping[str, str], also: Collection[str] = ()) -> MountOptions:
        """Options by name; those without a value have ``""``. ``also`` are names valid elsewhere, for the hint.

        Raises
        ------
        ConfigError
            An unknown name (the nearest known one is told) or a value that makes no sense.
        """
        flags: int = DEFAULT_FLAGS
        values: dict[str, Any] = {}
        for name, value in options.items():
            if name in _FLAGS:
                bit, wanted = _FLAGS[name]
                flags = flags | bit if wanted else flags & ~bit
            elif name in _SWITCHES:
                if name != "default_permissions":
                    values[name] = _switch(name, value)
                elif not _switch(name, value):
                    raise ConfigError("the kernel always checks permissions here; leave this option out", name)
            elif name in _VALUES:
                values[name] = _value(name, value)
            else:
                known = [*_FLAGS, *_SWITCHES, *_VALUES]
                near = difflib.get_close_matches(name, [*known, *also], 1)
                hint = f"did you mean {near[0]}?" if near else f"options are {', '.join(sorted({*known, *also}))}"
                raise ConfigError(f"unknown option; {hint}", name)
        return cls(flags=flags, **values)


def _switch(name: str, value: str) -> bool:
    if value in {"", "on", "true", "yes", "1"}:
        return True
    if value in {"off", "false", "no", "0"}:
        return False
    raise ConfigError(f"{value!r} is neither on nor off", name)


def _value(name: str, value: str) -> str | float:
    if name == "drain_timeout":
        try:
            return float(parse_duration(value))
        except ValueError as error:
            raise ConfigError(str(error), name) from error
    if name == "transport" and value not in CHOICES:
        raise ConfigError(f"{value!r} is no transport; there are {', '.join(CHOICES)}", name)
    return value if name in {"fsname", "transport"} else _number(name, value)


def _number(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    if number < (LEAST_READ if name == "max_read" else 0):
        raise ConfigError(f"{value!r} is no number of {'bytes from 4096 on' if name == 'max_read' else 'KiB'}", name)
    return number
