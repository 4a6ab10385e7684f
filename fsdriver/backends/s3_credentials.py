"""Keys for signing requests to S3: one source for all clients, asked again when it changes or a request is denied."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fsdriver.config.values import SecretRef, reveal
from fsdriver.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from fsdriver.config.models import BackendConfig

log = logging.getLogger("fsdriver.backends")

LIFE: Final = timedelta(minutes=5)
"""How long obstore is told that keys last. With no more left than that it asks again before each request, at most ten
times a second, and so notices new ones."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which files and variables are looked at again. botocore renews temporary keys at least 10 minutes before they
end."""
CHAIN_PAUSE: Final = 5.0
"""Seconds between two times that the chain of AWS is gone through anew for requests that were denied, and gave the same keys."""
_SHARED_FILES: Final = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
)


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests are signed with."""

    key_id: str = field(repr=False)
    secret: str | None = field(repr=False)
    token: str | None = field(repr=False)


class Credentials:
    """Keys of one backend: configured ones, else those of the environment, else the standard chain of AWS. Thread-safe.

    The chain is that of botocore: profile, process, web identity, container and instance.

    Parameters
    ----------
    key_id, secret, token : secret, optional
        As configured.
    anonymous : bool
        Requests are not signed at all.
    environ : mapping
    """

    def __init__(
        self,
        key_id: SecretStr | SecretRef | None = None,
        secret: SecretStr | SecretRef | None = None,
        token: SecretStr | SecretRef | None = None,
        *,
        anonymous: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.anonymous = anonymous
        self._configured = (key_id, secret, token)
        self._environ = environ
        self._fixed = key_id is not None and not any(isinstance(one, SecretRef) for one in self._configured)
        self._keys: Keys | None = None
        self._looked = self._changed = self._renewed = float("-inf")
        self._failing = False
        self._chain: Any = None
        self._chain_files: tuple[object, ...] = ()
        self._session: Any = None
        self._renewing = threading.Lock()
        self._making = threading.Lock()

    @classmethod
    def from_config(cls, config: BackendConfig, environ: Mapping[str, str]) -> Credentials:
        """The credentials of a configured backend; a reference that leads nowhere raises ConfigError."""
        made = cls(
            config.access_key_id,
            config.secret_access_key,
            config.session_token,
            anonymous=config.anonymous,
            environ=environ,
        )
        if config.access_key_id is not None:
            made.keys()
        return made

    # -- keys --------------------------------------------------------------------------------------------------------

    def keys(self) -> Keys:
        """The keys of now; may block on files and on the network.

        Raises
        ------
        AccessDenied
            The chain has no credentials.
        ConfigError
            A reference leads nowhere, and did from the beginning.
        """
        known = self._keys
        if known is not None and (self._fixed or time.monotonic() - self._looked < LOOK_AGAIN):
            return known
        try:
            found = self._read()
        except ConfigError as error:
            if known is None:
                raise
            if not self._failing:
                self._failing = True
                log.warning("the keys of before are used on: %s", error)
            found = known
        else:
            self._failing = False
        self._learn(found)
        return found

    def renew(self, since: float) -> bool:
        """A request that began at ``since`` (`time.monotonic`) was denied: whether there are other keys to try now."""
        if self.anonymous or self._fixed:
            return False
        with self._renewing:
            if self._changed > since:
                return True
            before = self._keys
            try:
                if self._chain is not None:
                    if time.monotonic() - self._renewed < CHAIN_PAUSE:
                        return False
                    self._chain = None
                found = self._read()
            except (AccessDenied, ConfigError) as error:
                log.warning("a request was denied, and no other keys were found: %s", error)
                return False
            self._learn(found)
            if found == before:
                self._renewed = time.monotonic()
            return found != before

    def _learn(self, found: Keys) -> None:
        now = time.monotonic()
        if self._keys is not None and found != self._keys:
            log.info("the keys of a backend have changed")
            self._changed = now
        self._keys, self._looked = found, now

    def _read(self) -> Keys:
        key_id, secret, token = self._configured
        environ = self._environ
        if key_id is not None:
            return Keys(reveal(key_id, environ) or "", reveal(secret, environ), reveal(token, environ))
        named, value = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if named and value:
            return Keys(named, value, environ.get("AWS_SESSION_TOKEN") or None)
        return self._ask_chain()

    def _ask_chain(self) -> Keys:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        with self._making:
            files = _signature(self._environ)
            if self._chain is None or files != self._chain_files:
                import boto3  # noqa: PLC0415

                self._chain, self._chain_files = boto3.Session(), files
            chain = self._chain
        try:
            found = chain.get_credentials()
            frozen = None if found is None else found.get_frozen_credentials()
        except BotoCoreError as error:
            raise AccessDenied(f"the credentials of AWS cannot be had: {error}") from error
        if frozen is None:
            raise AccessDenied(
                "no credentials: set access_key_id and secret_access_key of the backend, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a profile, or anonymous = true for a public bucket"
            )
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    # -- for the clients ---------------------------------------------------------------------------------------------

    def fetch(self) -> dict[str, Any]:
        """The keys as obstore takes them, with the time after which it must ask again."""
        keys = self.keys()
        expires = None if self._fixed else datetime.now(UTC) + LIFE
        return {
            "access_key_id": keys.key_id, "secret_access_key": keys.secret, "token": keys.token, "expires_at": expires
        }  # fmt: skip

    async def __call__(self) -> dict[str, Any]:
        """Answer obstore's call for credentials."""
        fresh = self._keys is not None and time.monotonic() - self._looked < LOOK_AGAIN
        return self.fetch() if self._fixed or fresh else await asyncio.to_thread(self.fetch)

    def session(self) -> Any:
        """A boto3 session with these credentials, made at first use: importing boto3 takes a quarter of a second."""
        with self._making:
            if self._session is None:
                import boto3  # noqa: PLC0415
                import botocore.session  # noqa: PLC0415

                core: Any = botocore.session.get_session()
                core._credentials = _live(self)  # noqa: SLF001 - what `set_credentials` sets, of fixed keys only
                share_models(core)
                self._session = boto3.Session(botocore_session=core)
            return self._session

    def asynchronous_session(self) -> Any:
        """As `session`, of aiobotocore: for s3fs."""
        from aiobotocore.session import AioSession  # noqa: PLC0415

        made = AioSession()
        made._credentials = _live_asynchronous(self)  # noqa: SLF001 - as above
        share_models(made)
        return made

    def sign(self, request: Any, region: str) -> None:
        """Add an Authorization header to a request of botocore."""
        if not self.anonymous:
            from botocore.auth import S3SigV4Auth  # noqa: PLC0415

            S3SigV4Auth(_frozen(self.keys()), "s3", region).add_auth(request)


def _signature(environ: Mapping[str, str]) -> tuple[object, ...]:
    """What moves when one of the files is written that hold credentials."""
    found: list[object] = [environ.get("AWS_PROFILE"), environ.get("AWS_DEFAULT_PROFILE")]
    for variable, default in _SHARED_FILES:
        path = Path(environ.get(variable) or default).expanduser()
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _frozen(keys: Keys) -> Any:
    from botocore.credentials import ReadOnlyCredentials  # noqa: PLC0415

    return ReadOnlyCredentials(keys.key_id, keys.secret or "", keys.token)


def _live(source: Credentials) -> Any:
    """Credentials of botocore that are asked for anew by each request."""
    from botocore.credentials import Credentials as Base  # noqa: PLC0415

    class Live(Base):
        def get_frozen_credentials(self) -> Any:
            return _frozen(source.keys())

    return Live("asked", "asked")


def _live_asynchronous(source: Credentials) -> Any:
    from aiobotocore.credentials import AioCredentials  # noqa: PLC0415

    class Live(AioCredentials):  # type: ignore[misc]
        async def get_frozen_credentials(self) -> Any:
            return _frozen(await asyncio.to_thread(source.keys))

    return Live("asked", "asked")


def share_models(session: Any) -> None:
    """Have the descriptions of services read once in a process, and not at all in its forked children."""
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))


@cache
def _loader(data_path: str | None) -> Any:
    from botocore.loaders import create_loader  # noqa: PLC0415 - botocore loads when it is used

    return create_loader(data_path)
