"""How one bucket is reached: endpoint, region, style of addresses, and one source of credentials for both clients."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fsdriver.config.values import reveal
from fsdriver.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsdriver.config.models import BackendConfig

DEFAULT_REGION: Final = "us-east-1"
AMAZON: Final = "amazonaws.com"
ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CREDENTIAL_LIFE: Final = timedelta(minutes=5)
"""How long obstore keeps an answer; botocore renews temporary keys at least 10 minutes before they end."""


@dataclass(slots=True)
class Credentials:
    """Keys for signing: fixed ones, else the standard chain of AWS (environment, profile, web identity, instance).

    Attributes
    ----------
    key_id, secret, token : str or None
        Fixed keys; the chain is asked only without them.
    anonymous : bool
        Requests are not signed at all.
    """

    key_id: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    anonymous: bool = False
    _session: Any = field(default=None, init=False, repr=False)

    def session(self) -> Any:
        """The boto3 session of these credentials, made at first use: importing boto3 takes a quarter of a second."""
        if self._session is None:
            import boto3  # noqa: PLC0415

            self._session = boto3.Session(
                aws_access_key_id=self.key_id, aws_secret_access_key=self.secret, aws_session_token=self.token
            )
        return self._session

    def fetch(self) -> dict[str, Any]:
        """The keys as obstore takes them, with the time after which it must ask again; may block on the network.

        Raises
        ------
        AccessDenied
            The chain has no credentials.
        """
        if self.key_id is not None:
            return _answer(self.key_id, self.secret, self.token, None)
        found = self.session().get_credentials()
        if found is None:
            raise AccessDenied(
                "no credentials: set access_key_id and secret_access_key of the backend, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a profile, or anonymous = true for a public bucket"
            )
        frozen = found.get_frozen_credentials()
        return _answer(frozen.access_key, frozen.secret_key, frozen.token, datetime.now(UTC) + CREDENTIAL_LIFE)

    async def __call__(self) -> dict[str, Any]:
        """Answer obstore's call for credentials."""
        return self.fetch() if self.key_id is not None else await asyncio.to_thread(self.fetch)


def _answer(key_id: str, secret: str | None, token: str | None, expires: datetime | None) -> dict[str, Any]:
    return {"access_key_id": key_id, "secret_access_key": secret, "token": token, "expires_at": expires}


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
    """

    bucket: str
    region: str
    endpoint: str | None
    path_style: bool
    credentials: Credentials
    timeout: float = 30.0
    connect_timeout: float = 5.0
    pool_size: int = 10

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
        endpoint = _endpoint(config, environ)
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
            credentials=_credentials(config, environ),
            timeout=config.timeout,
            connect_timeout=config.connect_timeout,
            pool_size=config.pool_size,
        )


def _endpoint(config: BackendConfig, environ: Mapping[str, str]) -> str | None:
    named = {"endpoint": config.endpoint, **{name: environ.get(name) for name in ENDPOINT_VARIABLES}}
    name, found = next(((name, value) for name, value in named.items() if value), ("", None))
    if found is not None and not urlsplit(found).netloc:
        raise ConfigError(f"{found!r} is no URL; write http://{found} or https://{found}", name)
    return found


def _credentials(config: BackendConfig, environ: Mapping[str, str]) -> Credentials:
    if config.anonymous:
        return Credentials(anonymous=True)
    if config.access_key_id is not None:
        return Credentials(
            reveal(config.access_key_id, environ),
            reveal(config.secret_access_key, environ),
            reveal(config.session_token, environ),
        )
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return Credentials(key_id, secret, environ.get("AWS_SESSION_TOKEN") or None)
    return Credentials()
