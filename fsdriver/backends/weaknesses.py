"""What a configured backend gives up of what its URL promises: said at start, by ``status`` and ``doctor``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from fsdriver.errors import ConfigError

if TYPE_CHECKING:
    from fsdriver.config.models import BackendConfig


def weakness(config: BackendConfig, environ: Mapping[str, str] = os.environ) -> str:
    """A sentence, or ``""``."""
    scheme = urlsplit(config.url).scheme.lower()
    if scheme == "direct":
        return _refused_direct(config)
    endpoint = _endpoint(config, scheme, environ)
    if urlsplit(endpoint).scheme == "http":
        return f"{endpoint} is plain HTTP: whoever is on the way reads all bytes, and can change them; use https"
    options = config.storage_options
    client = options.get("client_kwargs")
    if _is_off(options, "verify", "ssl", "verify_ssl") or (isinstance(client, dict) and _is_off(client, "verify")):
        return (
            "certificates are not verified: whoever is on the way can read and change all bytes; leave that option out"
        )
    if _is_off(options, "use_ssl") or (isinstance(client, dict) and _is_off(client, "use_ssl")):
        return "TLS is switched off: whoever is on the way reads all bytes, and can change them; leave that option out"
    return ""


def _refused_direct(config: BackendConfig) -> str:
    from fsdriver.backends.direct import REMEDY, refusal  # noqa: PLC0415 - a store's modules load when it is used

    root = unquote(urlsplit(config.url).path)
    found = refusal(root) if root != "/" else ""
    return f"{found}: what is read and written here takes memory from other programs; {REMEDY}" if found else ""


def _is_off(options: Mapping[str, Any], *names: str) -> bool:
    return any(options.get(name) is False for name in names)


def _endpoint(config: BackendConfig, scheme: str, environ: Mapping[str, str]) -> str:
    if scheme in {"s3", "s3a"}:
        from fsdriver.backends.s3_settings import find_endpoint  # noqa: PLC0415 - a service's modules load when it is used

        try:
            return find_endpoint(config, environ) or ""
        except ConfigError:
            return ""  # opening it says so
    given = config.storage_options.get("endpoint_url")
    return given if isinstance(given, str) else config.url if scheme == "http" else ""
