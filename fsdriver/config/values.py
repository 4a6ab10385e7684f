"""Value types of the configuration: sizes, durations, permission bits and secrets."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    model_validator,
)

from fsdriver.errors import ConfigError

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(iB|B)?", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?")
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: Any) -> Any:
    """Bytes from a number or a text: ``"20 GiB"`` and ``"20G"`` are powers of 1024, ``"20 GB"`` of 1000."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'{value!r} is no size; write bytes as a number, or a text such as "512 MiB" or "20 GB"')
    number, prefix, unit = match.groups()
    base = 1000 if unit is not None and unit.lower() == "b" and prefix else 1024
    return int(float(number) * base ** _POWERS[prefix.lower()])


def parse_duration(value: Any) -> Any:
    """Seconds from a number or a text such as ``"30s"``, ``"250ms"``, ``"5m"``, ``"2h"`` or ``"7d"``."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'{value!r} is no duration; write seconds as a number, or a text such as "30s" or "5m"')
    number, unit = match.groups()
    return float(number) * _SECONDS[unit or "s"]


def parse_mode(value: Any) -> Any:
    """Permission bits from an integer or from octal digits in a text (``"0644"``, ``"755"``, ``"0o644"``)."""
    if not isinstance(value, str):
        return value
    digits = value.strip().lower().removeprefix("0o")
    try:
        return int(digits, 8)
    except ValueError:
        raise ValueError(f'{value!r} is no mode; write octal digits such as "0644"') from None


Size: TypeAlias = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
"""Bytes."""
Seconds: TypeAlias = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
Mode: TypeAlias = Annotated[int, BeforeValidator(parse_mode), Field(ge=0, le=0o7777)]


class SecretRef(BaseModel):
    """Where a secret is kept: an environment variable or a file, read at use and never stored.

    Attributes
    ----------
    env : str, optional
        Name of an environment variable.
    file : Path, optional
        A file whose content, without surrounding white space, is the secret.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SecretRef:
        if (self.env is None) == (self.file is None):
            raise ValueError('a secret by reference names one source: { env = "NAME" } or { file = "/path" }')
        return self

    def read(self, environ: Mapping[str, str] = os.environ) -> str:
        """The secret itself.

        Raises
        ------
        ConfigError
            The variable is not set, or the file cannot be read.
        """
        if self.env is not None:
            try:
                return environ[self.env]
            except KeyError:
                raise ConfigError(f"the environment variable {self.env}, which holds a secret, is not set") from None
        assert self.file is not None
        path = self.file.expanduser()
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"this file, which holds a secret, cannot be read: {reason}", str(path)) from error


WRITTEN: Final = "<written>"
REFERENCE: Final = "<reference>"
Secret: TypeAlias = Annotated[
    Annotated[SecretStr, Tag(WRITTEN)] | Annotated[SecretRef, Tag(REFERENCE)],
    Discriminator(lambda value: REFERENCE if isinstance(value, dict | SecretRef) else WRITTEN),
]
"""A secret as configured: written out (never printed) or by reference; the tags keep messages to the form meant."""


def reveal(secret: SecretStr | SecretRef | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The text of a secret, read now; None stays None."""
    if secret is None:
        return None
    return secret.read(environ) if isinstance(secret, SecretRef) else secret.get_secret_value()


KEY_BYTES: Final = 32
"""Of a key of AES-256."""


def parse_key(text: str) -> bytes:
    """A key of 32 bytes, from 64 hexadecimal digits or from base64 (either alphabet).

    Raises
    ------
    ValueError
        It is neither, or of another length; the message does not repeat it.
    """
    text = text.strip()
    try:
        found = (
            bytes.fromhex(text)
            if len(text) == 2 * KEY_BYTES
            else base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
        )
    except (binascii.Error, ValueError):
        found = b""
    if len(found) == KEY_BYTES:
        return found
    told = f"{len(found)} bytes" if found else f"{len(text)} characters that are neither"
    raise ValueError(
        f"a key has {KEY_BYTES} bytes, written as 64 hexadecimal digits or in base64; this one has {told}."
        " Make one with: openssl rand -hex 32"
    )


def reveal_key(secret: SecretStr | SecretRef, name: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """The key that a secret is, read now; ``name`` is its place in the configuration.

    Raises
    ------
    ConfigError
        It cannot be read, or is no key.
    """
    text = secret.read(environ) if isinstance(secret, SecretRef) else secret.get_secret_value()
    try:
        return parse_key(text)
    except ValueError as error:
        raise ConfigError(str(error), name) from None


def _is_key(secret: SecretStr | SecretRef) -> SecretStr | SecretRef:
    if isinstance(secret, SecretStr):
        parse_key(secret.get_secret_value())
    return secret


Key: TypeAlias = Annotated[Secret, AfterValidator(_is_key)]
"""A secret that is a key of AES-256; one that is written out is looked at when the configuration is read."""
