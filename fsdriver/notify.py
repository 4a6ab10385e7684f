"""Telling the mount daemons of this host that another face changed something, so that the kernel's caches let go of it.

Every daemon listens on ``<runtime_dir>/*.sock`` (JSON lines, see `fsdriver.fuse_mount.control`). Listings of other processes
need no message: they see the directory's epoch move.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds to wait for a daemon's acknowledgement."""


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address of a unix socket that fits into the kernel's 108 bytes, however deep the runtime directory lies."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def announce(directory: Path, identity: str, keys: Sequence[str]) -> None:
    """Send ``invalidate`` to every daemon of this user and wait for the acknowledgements.

    Parameters
    ----------
    directory : Path
        Where daemons listen (`fsdriver.config.runtime_dir`).
    identity : str
        Identity of the store.
    keys : sequence of str
        Full keys (names) that changed.
    """
    if sockets := _sockets(directory):
        message = json.dumps({"command": "invalidate", "store": identity, "keys": list(keys)}).encode() + b"\n"
        await asyncio.gather(*(_tell(path, message) for path in sockets))


def _sockets(directory: Path) -> list[Path]:
    return list(directory.glob("*.sock"))


async def _tell(path: Path, message: bytes) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            with socket_address(path) as address:
                reader, writer = await asyncio.open_unix_connection(address)
            try:
                writer.write(message)
                await writer.drain()
                await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (ConnectionRefusedError, FileNotFoundError, ConnectionResetError, BrokenPipeError):
        log.debug("no daemon listens on %s any more", path)
    except TimeoutError:
        log.warning(
            "the daemon at %s did not acknowledge a change within %g s; its kernel cache expires by ttl", path, PATIENCE
        )
    except OSError as error:
        # The change is made and journaled: who made it is not to hear of this.
        log.warning("the daemon at %s could not be told of a change (%s); its kernel cache expires by ttl", path, error)
