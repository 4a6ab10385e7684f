"""The connection to Redis: made as configured, bounded in time, and failing with this project's errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from fsdriver.config import CatalogConfig, reveal
from fsdriver.errors import AccessDenied, BackendError, ConfigError, FsdriverError, TimedOut, Unreachable
from fsdriver.runtime import on_loop

log = logging.getLogger(__name__)

T = TypeVar("T")

OLDEST: Final = 7
"""Major version of Redis."""
SCHEMA_VERSION: Final = 1
CONNECTIONS: Final = 16
"""Over which this process asks; more requests wait for one of them."""
LISTENING: Final = 4
"""Connections beside those, over which it listens."""
_DENIED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
ATTEMPTS_AGAIN: Final = 2
"""After a connection was lost; what was asked may have been done already, so all scripts can be asked twice."""


class RedisConnection:
    """See the module. Used on the event loop.

    Parameters
    ----------
    config : CatalogConfig
        With a URL.

    """

    def __init__(self, config: CatalogConfig) -> None:
        assert config.url is not None
        self.name = config.url
        self.prefix = config.prefix
        self.timeout = config.timeout
        self._config = config
        self._client: Redis | None = None
        self._checked: asyncio.Task[None] | None = None
        self._free = asyncio.Semaphore(CONNECTIONS)

    @property
    def client(self) -> Redis:
        """The client, whose connections are made when they are needed."""
        if self._client is None:
            self._client = self._make()
        return self._client

    def _make(self) -> Redis:
        config = self._config
        options: dict[str, Any] = {}
        if config.username is not None:
            options["username"] = config.username
        if config.password is not None:
            options["password"] = reveal(config.password)
        if self.name.startswith("rediss:"):
            options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
            for option, path in (
                ("ssl_ca_certs", config.tls_ca),
                ("ssl_certfile", config.tls_certificate),
                ("ssl_keyfile", config.tls_key),
            ):
                if path is not None:
                    if not path.expanduser().is_file():
                        raise ConfigError("there is no such file; [catalog] names it", str(path))
                    options[option] = str(path.expanduser())
        return Redis.from_url(
            self.name,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            max_connections=CONNECTIONS + LISTENING,
            retry=Retry(
                ExponentialBackoff(cap=0.5, base=0.05), ATTEMPTS_AGAIN, supported_errors=(exceptions.ConnectionError,)
            ),
            client_name="fsdriver",
            **options,
        )

    async def do(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Result of ``work`` with the client.

        Raises
        ------
        Unreachable, TimedOut
            Redis does not answer; tried again, it may.
        AccessDenied
            User or password are wrong, or the user may not do that.
        """
        await on_loop()
        await self._check()
        return await self._guarded(work)

    async def _guarded(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self.timeout * 2), self._free:
                return await work(self.client)
        except FsdriverError:
            raise
        except Exception as error:
            known = self.explained(error)
            if known is None:
                raise
            raise known from error

    async def _check(self) -> None:
        """Once: that the server is one that this program can use. Who comes meanwhile waits."""
        if self._checked is None or (self._checked.done() and _failed(self._checked)):
            self._checked = asyncio.get_running_loop().create_task(self._look())
        if not self._checked.done():
            await asyncio.shield(self._checked)

    async def _look(self) -> None:
        name = f"{self.prefix}:schema"
        version = await self._guarded(lambda client: _schema(client, name))
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"the catalog in Redis has schema {version}, this program knows {SCHEMA_VERSION}: use the newer program",
                self.name,
            )
        about = await self._guarded(_about)
        major = str(about.get("redis_version", OLDEST)).partition(".")[0]
        if major.isdecimal() and int(major) < OLDEST:
            raise ConfigError(f"this is Redis {about['redis_version']}; {OLDEST} or later is needed", self.name)
        if (policy := about.get("maxmemory_policy", "noeviction")) != "noeviction":
            log.warning(
                "%s: maxmemory-policy is %s: Redis may drop what is known of files; set it to noeviction",
                self.name,
                policy,
            )

    def explained(self, error: Exception) -> FsdriverError | None:
        """The error of this project that one of the client means; None for one that is no failure of Redis."""
        if isinstance(error, _DENIED) or "NOAUTH" in str(error):
            return AccessDenied(f"Redis refuses: {error}; see username and password of [catalog]", self.name)
        if isinstance(error, exceptions.TimeoutError | TimeoutError):
            return TimedOut(f"Redis has not answered for {self.timeout:g} s", self.name)
        if isinstance(error, exceptions.ConnectionError | OSError):
            return Unreachable(f"Redis cannot be reached: {error}", self.name)
        if isinstance(error, exceptions.RedisError):
            failure = BackendError(f"Redis refuses: {error}", self.name)
            failure.temporary = True
            return failure
        return None

    async def close(self) -> None:
        """End all connections."""
        if self._client is not None:
            await on_loop()
            client, self._client = self._client, None
            await client.aclose()


async def _schema(client: Redis, name: str) -> int:
    await client.set(name, SCHEMA_VERSION, nx=True)
    return int(await client.get(name) or SCHEMA_VERSION)


async def _about(client: Redis) -> dict[str, Any]:
    """What the server says of itself; nothing where the user may not ask."""
    try:
        return {**await client.info("server"), **await client.info("memory")}
    except exceptions.NoPermissionError:
        return {}


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None
