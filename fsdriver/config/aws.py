"""What the standard AWS variables say, applied when a backend is opened and never stored in a model that is printed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from fsdriver.config.models import BackendConfig
from fsdriver.config.values import reveal


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach and sign for one S3 service.

    Attributes
    ----------
    endpoint : str or None
        URL of the service; None is Amazon's own.
    path_style : bool
        Bucket in the path of the URL.
    region : str or None
        None leaves it to the profile of the credential chain, else ``us-east-1``.
    access_key_id, secret_access_key, session_token : str or None
        Static keys; None leaves them to the standard chain (profile, web identity, instance), unless ``anonymous``.
    anonymous : bool
        Send unsigned requests.
    """

    endpoint: str | None = None
    path_style: bool = False
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False


def aws_environment(environ: Mapping[str, str] = os.environ) -> S3Settings:
    """The settings that the AWS variables give by themselves.

    ``AWS_ENDPOINT_URL_S3`` goes before ``AWS_ENDPOINT_URL``, and both imply path style;
    ``AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`` switches both off. Key id and secret count only together.
    """
    ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    endpoint = None if ignored else environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    key, secret = environ.get("AWS_ACCESS_KEY_ID") or None, environ.get("AWS_SECRET_ACCESS_KEY") or None
    whole = key is not None and secret is not None
    return S3Settings(
        endpoint=endpoint,
        path_style=endpoint is not None,
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
        access_key_id=key if whole else None,
        secret_access_key=secret if whole else None,
        session_token=(environ.get("AWS_SESSION_TOKEN") or None) if whole else None,
    )


def s3_settings(backend: BackendConfig, environ: Mapping[str, str] = os.environ) -> S3Settings:
    """Settings of one backend: its own keys first, then the AWS variables.

    Raises
    ------
    ConfigError
        A secret given by reference cannot be read.
    """
    ambient = aws_environment(environ)
    endpoint = backend.endpoint or ambient.endpoint
    path_style = endpoint is not None if backend.path_style is None else backend.path_style
    region = backend.region or ambient.region
    if backend.anonymous:
        return S3Settings(endpoint=endpoint, path_style=path_style, region=region, anonymous=True)
    keys = backend if backend.access_key_id is not None else None
    return S3Settings(
        endpoint=endpoint,
        path_style=path_style,
        region=region,
        access_key_id=reveal(keys.access_key_id, environ) if keys else ambient.access_key_id,
        secret_access_key=reveal(keys.secret_access_key, environ) if keys else ambient.secret_access_key,
        session_token=reveal(keys.session_token, environ) if keys else ambient.session_token,
    )
