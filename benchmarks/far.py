"""A store far away: each connection has a latency and a rate of its own, as those to S3 from the same region have."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

_CHUNK: Final = 64 << 10


@contextlib.contextmanager
def far(endpoint: str, latency: float, rate: float) -> Iterator[str]:
    """The endpoint of a relay to another one, in a process of its own.

    Parameters
    ----------
    endpoint : str
        URL of the server that is near.
    latency : float
        Seconds until a request reaches it.
    rate : float
        Bytes a second of the answers of one connection.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, urlsplit(endpoint).netloc, latency, rate), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.kill()
        process.join()


def _serve(pipe: Any, upstream: str, latency: float, rate: float) -> None:
    host, _, port = upstream.partition(":")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_relay(reader, upstream_writer, latency, None), _relay(upstream_reader, writer, 0.0, rate))

    async def main() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def _relay(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, latency: float, rate: float | None
) -> None:
    loop = asyncio.get_running_loop()
    free = 0.0
    with contextlib.suppress(ConnectionError):
        while data := await source.read(_CHUNK):
            if rate is None:
                await asyncio.sleep(latency)
            else:
                free = max(free, loop.time()) + len(data) / rate
                await asyncio.sleep(max(0.0, free - loop.time()))
            target.write(data)
            await target.drain()
    target.close()
