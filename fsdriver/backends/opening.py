"""From a configured URL to the backend that serves it."""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from fsspec.registry import known_implementations

from fsdriver.backends.forks import threads_lost
from fsdriver.backends.retry import RetryPolicy
from fsdriver.config.values import reveal_key
from fsdriver.errors import ConfigError

if TYPE_CHECKING:
    from fsdriver.backends.base import Backend
    from fsdriver.backends.store import Store
    from fsdriver.config.models import BackendConfig

log = logging.getLogger(__name__)

S3_SCHEMES: Final = {"s3", "s3a"}
LOCAL_SCHEMES: Final = {"file", "local"}
DIRECT: Final = "direct"
EXTRAS: Final = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "hf": "hf",
}
"""Schemes whose packages an extra of this distribution installs."""

_warned: set[str] = set()


def open_backend(name: str, config: BackendConfig) -> tuple[Store, str]:
    """Make the backend of a configured URL; nothing is sent yet.

    Parameters
    ----------
    name : str
        Of the backend in the configuration, for messages.
    config : BackendConfig

    Returns
    -------
    tuple of Store and str
        The backend, and the key prefix that the URL names, without ``/`` at its ends.

    Raises
    ------
    ConfigError
        Unknown scheme, missing package, no bucket, no key.
    """
    backend, prefix = _open(name, config)
    if not config.is_coded:
        return backend, prefix
    from fsdriver.backends.codecs.envelope import Keys  # noqa: PLC0415
    from fsdriver.backends.codecs.formats import CODECS  # noqa: PLC0415
    from fsdriver.backends.coded import CodedBackend  # noqa: PLC0415

    codec = CODECS[config.compression](config.compression_level) if config.compression != "none" else None
    where = f"backend.{name}"
    writing = None if config.encryption_key is None else reveal_key(config.encryption_key, f"{where}.encryption_key")
    keys = Keys(writing, [reveal_key(key, f"{where}.decryption_keys") for key in config.decryption_keys])
    return CodedBackend(backend, codec, keys), prefix


def _open(name: str, config: BackendConfig) -> tuple[Backend, str]:
    """The backend that speaks to the service."""
    retry = RetryPolicy(attempts=config.retries + 1, deadline=config.timeout)
    parts = urlsplit(config.url)
    scheme = parts.scheme.lower()
    _check_scheme(name, scheme, config.url)
    try:
        if scheme in LOCAL_SCHEMES and config.engine == "auto":
            from fsdriver.backends.local import LocalBackend  # noqa: PLC0415

            path = unquote(parts.path)
            return LocalBackend(path, retry, **config.storage_options), path.strip("/")
        if scheme == DIRECT:
            return _open_direct(name, config, retry)
        if scheme in S3_SCHEMES:
            # The path of an s3 URL is the key itself: nothing in it is decoded, and "?" and "#" belong to it.
            bucket, _, prefix = config.url.partition("://")[2].partition("/")
            return _open_s3(name, bucket, config, retry), _checked_prefix(prefix.strip("/"))
        from fsdriver.backends.fsspec_backend import open_filesystem  # noqa: PLC0415

        return open_filesystem(scheme, config.url, config.storage_options, retry)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'fsdriver[{extra}]'" if extra else str(known_implementations[scheme].get("err", error))
        raise ConfigError(f"backend {name!r}: a package for {scheme!r} is missing; {how}", config.url) from error


def _open_direct(name: str, config: BackendConfig, retry: RetryPolicy) -> tuple[Backend, str]:
    from fsdriver.backends.direct import DirectBackend  # noqa: PLC0415

    parts = urlsplit(config.url)
    path = unquote(parts.path)
    if parts.netloc or not path:
        raise ConfigError(f"backend {name!r}: write direct:// and an absolute path, as in direct:///data", config.url)
    if config.engine != "auto":
        raise ConfigError(f"backend {name!r}: direct:// has one engine; leave 'engine' out", config.url)
    return DirectBackend(path, retry, **config.storage_options), path.strip("/")


def _checked_prefix(prefix: str) -> str:
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ConfigError("the prefix of the URL is no UTF-8 text, which keys of S3 are", ascii(prefix)) from None
    return prefix


def _open_s3(name: str, bucket: str, config: BackendConfig, retry: RetryPolicy) -> Backend:
    """The S3 client of choice: s3fs if asked for, or where a fork has taken obstore away."""
    from fsdriver.backends.s3_settings import S3Settings  # noqa: PLC0415 - a service's packages load when it is used

    settings = S3Settings.from_config(bucket, config)
    if config.engine == "auto":
        from fsdriver.backends.objectstore import ObjectStoreBackend  # noqa: PLC0415

        if not threads_lost():
            _name_what_has_no_effect(name, config)
            return ObjectStoreBackend(settings, retry)
        if name not in _warned:
            _warned.add(name)
            log.warning(
                "backend %r: this process was forked from one that already used obstore, the fast S3 client, which does not "
                "survive a fork; going on through s3fs (start workers with 'spawn' or 'forkserver' to keep it)",
                name,
            )
    from fsdriver.backends.s3fs_backend import S3fsBackend  # noqa: PLC0415

    return S3fsBackend(settings, retry, config.storage_options)


def _name_what_has_no_effect(name: str, config: BackendConfig) -> None:
    """Options of s3fs that it alone knows, or that nobody knows."""
    for option in sorted(config.storage_options):
        if (told := f"{name}.{option}") in _warned:
            continue
        _warned.add(told)
        near = difflib.get_close_matches(option, type(config).model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "s3fs may know it: engine = 'fsspec'"
        log.warning("backend %r: the option %r has no effect; %s", name, option, hint)


def _check_scheme(name: str, scheme: str, url: str) -> None:
    known = {*known_implementations, *S3_SCHEMES, *LOCAL_SCHEMES, DIRECT}
    if scheme in known:
        return
    near = difflib.get_close_matches(scheme, sorted(known), n=1, cutoff=0.6)
    hint = (
        f"; did you mean {near[0]!r}?"
        if near
        else "; s3, file, direct and those of fsspec (gs, az, hf, http, …) are known"
    )
    raise ConfigError(f"backend {name!r}: unknown scheme {scheme!r}{hint}", url)
