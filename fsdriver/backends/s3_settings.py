"""How one bucket is reached: endpoint, region, style of addresses, and one source of credentials for both clients."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fsdriver.backends.s3_credentials import Credentials
from fsdriver.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdriver.config.models import BackendConfig

_BUCKET: Final = re.compile("[A-Za-z0-9._:-]+")
"""Those of all services; with colons the name of an access point of Amazon's."""
DEFAULT_REGION: Final = "us-east-1"
AMAZON: Final = "amazonaws.com"
ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Everything both clients need to know of one bucket.

    Attributes
    ----------
    endpoint : str or None
        URL of the service without the bucket; None is Amazon's.
    path_style : bool
        ``endpoint/bucket/key`` rather than ``bucket.endpoint/key``.
    timeout, connect_timeout : float
        Seconds without a byte, and until a connection stands.
    pool_size : int
        Most connections at a time.
    checksums : bool
        Uploads carry SHA-256 sums that the service checks.
    """

    bucket: str
    region: str
    endpoint: str | None
    path_style: bool
    credentials: Credentials
    timeout: float = 30.0
    connect_timeout: float = 5.0
    pool_size: int = 10
    checksums: bool = True

    @property
    def location(self) -> str:
        """The service's part of the store's identity."""
        return AMAZON if self.endpoint is None else self.endpoint

    @property
    def address(self) -> str | None:
        """The URL that obstore wants: with the bucket in the host name unless addresses are path style."""
        if self.endpoint is None or self.path_style:
            return self.endpoint
        parts = urlsplit(self.endpoint)
        return parts._replace(netloc=f"{self.bucket}.{parts.netloc}").geturl()

    @classmethod
    def from_config(cls, bucket: str, config: BackendConfig, environ: Mapping[str, str] = os.environ) -> S3Settings:
        """Settings of a configured backend, completed from the standard ``AWS_*`` variables.

        Raises
        ------
        ConfigError
            The URL names no bucket, the endpoint is no URL, or a referenced secret cannot be read.
        """
        if not bucket:
            raise ConfigError("the URL names no bucket; write s3://BUCKET/PREFIX", config.url)
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(f"{bucket!r} is no name of a bucket; write s3://BUCKET/PREFIX", ascii(config.url))
        endpoint = find_endpoint(config, environ)
        region = config.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
        path_style = config.path_style
        if path_style is None:
            # A bucket with dots has no certificate under the wildcard of the service's host names.
            path_style = endpoint is not None or "." in bucket
        return cls(
            bucket=bucket,
            region=region,
            endpoint=endpoint.rstrip("/") if endpoint else None,
            path_style=path_style,
            credentials=Credentials.from_config(config, environ),
            timeout=config.timeout,
            connect_timeout=config.connect_timeout,
            pool_size=config.pool_size,
            checksums=config.checksums,
        )


def find_endpoint(config: BackendConfig, environ: Mapping[str, str]) -> str | None:
    """URL of the service, as configured or from the standard variables; None: Amazon's. Raises ConfigError."""
    named = {"endpoint": config.endpoint, **{name: environ.get(name) for name in ENDPOINT_VARIABLES}}
    name, found = next(((name, value) for name, value in named.items() if value), ("", None))
    if found is not None and urlsplit(found).username is not None:
        raise ConfigError(
            "the endpoint holds a user name or password; give keys by AWS_ACCESS_KEY_ID and its like", name
        )
    if found is not None and not urlsplit(found).netloc:
        raise ConfigError(f"{found!r} is no URL; write http://{found} or https://{found}", name)
    return found
