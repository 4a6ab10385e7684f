"""What hosts that share a tree tell each other through Redis: which objects changed, and which host sweeps.

Announcements are a hint that makes changes visible at once. Who misses one sees the change when its time to live has ended; who
knows that it may have missed one is told that everything may have changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from fsdriver.errors import FsdriverError
from fsdriver.runtime import on_loop
from fsdriver.tiers import redis_scripts as scripts
from fsdriver.tiers.redis_catalog import base_name
from fsdriver.tiers.redis_connection import RedisConnection

log = logging.getLogger(__name__)

KEYS: Final = 500
"""In one message; of more, everything is said to have changed."""
PULSE: Final = 5.0
"""Seconds without a word from Redis after which it is asked for one; as many later, the connection is given up."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to connect."""
LEASE_SECONDS: Final = 30.0

Listener: TypeAlias = Callable[[Sequence[str] | None], None]
"""Called on the event loop with keys that others changed; None: everything may have changed."""


class Bus:
    """Announcements of one process, and those of others.

    Parameters
    ----------
    connection : RedisConnection
    pulse : float, optional
        Seconds after which a connection that says nothing is tried.
    """

    def __init__(self, connection: RedisConnection, pulse: float = PULSE) -> None:
        self._connection = connection
        self._pulse = pulse
        self._name = secrets.token_hex(8)
        self._listeners: dict[str, tuple[str, Listener]] = {}
        self._unsaid: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.connected = False
        self.failures = 0
        """Connections that were lost, and announcements that could not be made."""

    def _channel(self, stack: str) -> str:
        return f"{base_name(self._connection.prefix, stack)}:changed"

    async def announce(self, stack: str, keys: Sequence[str]) -> bool:
        """Tell other processes that objects changed; False: Redis is away, and they are told later that anything may have."""
        await on_loop()
        said: Sequence[str] | None = None if stack in self._unsaid or len(keys) > KEYS else list(keys)
        message = json.dumps({"from": self._name, "keys": said})
        try:
            await self._connection.do(lambda client: client.publish(self._channel(stack), message))
        except FsdriverError as error:
            self.failures += 1
            if stack not in self._unsaid:
                log.warning("%s: other hosts are not told of changes: %s", stack, error)
            self._unsaid.add(stack)
            return False
        self._unsaid.discard(stack)
        return True

    async def subscribe(self, stack: str, listener: Listener) -> None:
        """Have ``listener`` called for the changes of others, from now on until `close`.

        It is called with None first, as soon as others are heard, and whenever that ends and begins again.
        """
        await on_loop()
        self._listeners[self._channel(stack)] = (stack, listener)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._ready.clear()
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until announcements arrive. Raises TimeoutError."""
        await on_loop()
        async with asyncio.timeout(timeout):
            await self._ready.wait()

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._connection.client.pubsub() as channels:
                    await channels.subscribe(*self._listeners)
                    await self._hear(channels)
            except (RedisError, FsdriverError, OSError) as error:
                self.failures += 1
                failures = 1 if self.connected else failures + 1
                if failures == 1:
                    known = error if isinstance(error, FsdriverError) else self._connection.explained(error)
                    log.warning("%s: changes of other hosts are seen later: %s", self._connection.name, known)
            self._lost()
            await asyncio.sleep(min(LONGEST_PAUSE, 0.05 * 2.0 ** min(failures, 10)))

    def _lost(self) -> None:
        """Nothing is heard any more."""
        if self.connected:
            self.connected = False
            self._ready.clear()
            self._anything(self._listeners)

    async def _hear(self, channels: PubSub) -> None:
        """Pass messages on, for as long as Redis gives a sign of life."""
        missing = set(self._listeners)
        asked = False
        while True:
            message = await channels.get_message(timeout=self._pulse)
            if message is None:
                if asked:
                    raise TimeoutError(f"Redis has not answered for {self._pulse:g} s")
                await channels.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                channel = _decoded(message["channel"])
                missing.discard(channel)
                self._anything([channel])
                if not missing:
                    await self._catch_up()
            elif message["type"] == "message":
                self._pass_on(_decoded(message["channel"]), message["data"])

    async def _catch_up(self) -> None:
        """All channels are heard. What could not be said before is said now."""
        self.connected = True
        self._ready.set()
        for stack in list(self._unsaid):
            await self.announce(stack, ())

    def _pass_on(self, channel: str, data: bytes) -> None:
        try:
            said = json.loads(data)
            sender, keys = said["from"], said["keys"]
        except (ValueError, KeyError, TypeError):
            log.warning("%s: a message that is no announcement was taken as one of everything", channel)
            sender, keys = "", None
        if sender != self._name:
            self._tell(channel, keys)

    def _anything(self, channels: Any) -> None:
        for channel in channels:
            self._tell(channel, None)

    def _tell(self, channel: str, keys: Sequence[str] | None) -> None:
        stack, listener = self._listeners[channel]
        try:
            listener(keys)
        except Exception:
            log.exception("%s: a change that another host has announced could not be passed on", stack)

    async def close(self) -> None:
        """Say and hear nothing more. The connection is its owner's."""
        await on_loop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class Leadership:
    """A lease that one host has at a time: it sweeps. Renewed as long as it is held.

    Parameters
    ----------
    connection : RedisConnection
    stack : str
    lease : float, optional
        Seconds after which it is another's if it is not renewed.
    """

    def __init__(self, connection: RedisConnection, stack: str, lease: float = LEASE_SECONDS) -> None:
        self._connection = connection
        self._name = f"{base_name(connection.prefix, stack)}:leader"
        self._owner = secrets.token_hex(8)
        self._lease = lease
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None
        self.token = 0
        """Fencing token: that of a later leader is larger."""

    @property
    def held(self) -> bool:
        """By this one: also if Redis cannot be reached, until the lease has ended for all others too."""
        return time.monotonic() < self._until

    async def take(self) -> bool:
        """Take or renew it; False: another has it, or Redis cannot be asked."""
        await on_loop()
        try:
            taken = await self._ask()
        except FsdriverError as error:
            log.info("who sweeps cannot be asked: %s", error)
            return self.held
        if taken and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._renew())
        return taken

    async def _ask(self) -> bool:
        began = time.monotonic()
        milliseconds = int(self._lease * 1000)
        token = int(
            await self._connection.do(
                lambda client: client.register_script(scripts.LEAD)(keys=[self._name], args=[self._owner, milliseconds])
            )
        )
        if not token:
            self._until = 0.0
            return False
        self.token, self._until = token, began + self._lease
        return True

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with suppress(FsdriverError):  # the lease ends by itself
                if not await self._ask():
                    return

    async def release(self) -> None:
        """Let another have it at once."""
        await on_loop()
        self._until = 0.0
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        with suppress(FsdriverError):  # it ends by itself
            await self._connection.do(
                lambda client: client.register_script(scripts.RESIGN)(keys=[self._name], args=[self._owner])
            )


def _decoded(channel: bytes | str) -> str:
    return channel.decode() if isinstance(channel, bytes) else channel
