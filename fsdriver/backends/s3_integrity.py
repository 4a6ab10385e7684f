"""Whether bytes that S3 sent are those it holds, as far as an ETag tells.

The ETag of an object of one plain PUT is the MD5 of its bytes, unless they are encrypted with a key of KMS or of the customer,
or the service makes its ETags otherwise (Amazon S3 API Reference, Object). Objects that come whole in one answer, up to
`MOST` bytes, are compared. A range of a larger one has no checksum of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fsdriver.errors import Corrupt

if TYPE_CHECKING:
    from fsdriver.backends.model import Counters

MOST: Final = 64 << 10
"""Bytes of an object that is compared: MD5 costs a tenth of the time of fetching as many, and as much as that for a MiB."""
MOST_OF_ATTRIBUTES: Final = 1 << 20
"""Bytes of an attribute object that is compared: what it says counts for a whole directory."""
INLINE: Final = 32 << 10
"""Bytes that are hashed on the event loop."""

_MD5: Final = re.compile("[0-9a-f]{32}")
_log = logging.getLogger("fsdriver.backends")


def is_md5(etag: str) -> bool:
    """Whether an ETag looks like an MD5: that of an upload in parts ends in their number."""
    return _MD5.fullmatch(etag) is not None


def is_encrypted(told: Mapping[str, Any]) -> bool:
    """Whether the ETag is no MD5 because of a key of KMS or of the customer, by the SDK's answer to a HEAD."""
    return "SSECustomerAlgorithm" in told or told.get("ServerSideEncryption", "AES256") != "AES256"


class Integrity:
    """See the module; for any thread.

    Parameters
    ----------
    counters : Counters
        ``corrupt_answers`` is counted there.
    location : str
        The service, in messages.

    Attributes
    ----------
    told : bool
        An ETag of this service was the MD5 of the bytes: one that is not speaks of damage from then on.
    useless : bool
        ETags of this service are not MD5 sums.
    """

    def __init__(self, counters: Counters, location: str) -> None:
        self._counters = counters
        self._location = location
        self.told = False
        self.useless = False

    def agrees(self, etag: str, data: memoryview, most: int = MOST) -> bool:
        """Whether nothing speaks against a whole object of up to ``most`` bytes."""
        if self.useless or len(data) > most or not is_md5(etag):
            return True
        same = hashlib.md5(data, usedforsecurity=False).hexdigest() == etag
        self.told = self.told or same
        return same

    async def check(
        self,
        key: str,
        etag: str,
        data: memoryview,
        *,
        again: Callable[[], Awaitable[memoryview]],
        encrypted: Callable[[], Awaitable[bool]],
        most: int = MOST,
    ) -> None:
        """Compare a whole object with its ETag.

        Parameters
        ----------
        again : callable
            Fetches it once more.
        encrypted : callable
            Whether its ETag is no MD5, because of its encryption.

        Raises
        ------
        Corrupt
            Temporary: another attempt may bring the right bytes.
        """
        small = len(data) <= INLINE or len(data) > most
        if self.agrees(etag, data, most) if small else await asyncio.to_thread(self.agrees, etag, data, most):
            return
        if await encrypted() or (not self.told and (await again()) == data):
            self.useless = True
            _log.info("%s: ETags are no MD5 sums there; what is fetched is not compared with them", self._location)
            return
        self._counters.corrupt_answers += 1
        error = Corrupt(f"{self._location} sent bytes that do not have the object's checksum (its ETag)", key)
        error.temporary = True
        _log.warning("%s", error)
        raise error
