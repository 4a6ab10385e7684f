"""Requests on one bucket that are made in the thread that waits for them, without the event loop and without the SDK's layers.

Each is one attempt and is soon given up. Whatever goes wrong, the caller asks again on the event loop, where deadlines,
retries and errors are; it has to reckon with a change that was carried out although nobody said so.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import obstore

from fsdriver.backends.model import ABSENT, Counters, ObjectInfo
from fsdriver.backends.s3_errors import is_panic
from fsdriver.backends.s3_integrity import Integrity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from obstore.store import S3Store

    from fsdriver.backends.s3_sdk import Sdk
    from fsdriver.backends.s3_settings import S3Settings

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds without a byte after which a request is given up: it holds a thread and cannot be cancelled."""
SLOW_PAUSE: Final = 60.0
"""Seconds for which none is tried then."""
IDLE_MOST: Final = 4.0
"""Seconds without a request after which a connection is not used again: the service may be closing it."""

_ETAG: Final = re.compile(rb"<ETag>(?:&quot;|&#34;|\")?([^<&\"]+)")
_log = logging.getLogger("fsdriver.backends")


class Immediate:
    """See the module; for any thread.

    Parameters
    ----------
    settings : S3Settings
    store : S3Store or None
        obstore's client with the patience of this module; without it, objects are fetched over connections of this module.
    sdk : Sdk
        Tells the address and has the credentials.
    counters : Counters
    answered : callable
        Called after every answer.
    integrity : Integrity, optional
        What is known of the service's ETags.
    """

    def __init__(
        self,
        settings: S3Settings,
        store: S3Store | None,
        sdk: Sdk,
        counters: Counters,
        answered: Callable[[], None],
        integrity: Integrity | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._counters = counters
        self._answered = answered
        self._integrity = integrity or Integrity(counters, settings.location)
        self._signed = _Signed(settings, sdk)
        self._resumes = 0.0

    def close(self) -> None:
        """Release the connections."""
        self._signed.close()

    def get(self, key: str, size: int, version: str) -> memoryview | None:
        """See `Backend.get_now`."""
        store, wanted = self._store, f'"{version}"'

        def request() -> memoryview:
            if store is None:
                return memoryview(self._signed.send("GET", key, {"If-Match": wanted}))
            return memoryview(obstore.get(store, key, options={"if_match": wanted}).bytes())

        data = self._attempt("get", key, request)
        if data is None or len(data) != size or not self._integrity.agrees(version, data):
            return None
        self._counters.bytes_read += size
        return data

    def put(
        self, key: str, data: bytes, metadata: Mapping[str, str] | None, if_version: str | None
    ) -> ObjectInfo | None:
        """See `Backend.put_now`."""
        store = self._store
        if store is None:
            return None
        mode: Any = (
            "overwrite" if if_version is None else "create" if if_version == ABSENT else {"e_tag": f'"{if_version}"'}
        )
        attributes: Any = dict(metadata or {})
        result = self._attempt(
            "put",
            key,
            lambda: obstore.put(store, key, data, attributes=attributes, mode=mode, use_multipart=False),
        )
        if result is None:
            return None
        self._counters.bytes_written += len(data)
        return ObjectInfo(key, len(data), time.time_ns(), (result["e_tag"] or "").strip('"'), dict(metadata or {}))

    def copy(
        self, size: int, source: str, target: str, source_version: str, if_version: str | None
    ) -> ObjectInfo | None:
        """See `Backend.copy_now`."""
        origin = {
            "x-amz-copy-source": quote(f"/{self._settings.bucket}/{source}"),
            "x-amz-copy-source-if-match": f'"{source_version}"',
        }
        answer = self._attempt(
            "copy", target, lambda: self._signed.send("PUT", target, origin | _condition(if_version))
        )
        # An answer may begin as a success and then tell of a failure.
        tag = None if answer is None else _ETAG.search(answer)
        return None if tag is None else ObjectInfo(target, size, time.time_ns(), tag[1].decode())

    def delete(self, key: str, if_version: str | None) -> bool:
        """See `Backend.delete_now`."""
        return (
            self._attempt("delete", key, lambda: self._signed.send("DELETE", key, _condition(if_version))) is not None
        )

    def _attempt(self, operation: str, key: str, request: Callable[[], T]) -> T | None:
        began = time.monotonic()
        if began < self._resumes:
            return None
        self._counters.count(operation)
        try:
            result = request()
        except Exception as error:  # noqa: BLE001 - the ordinary way meets it again and says what it is
            if time.monotonic() - began >= PATIENCE:
                self._resumes = time.monotonic() + SLOW_PAUSE
                _log.info("%s is slow: no thread waits for it for %g s", self._settings.location, SLOW_PAUSE)
            _log.debug("%s: one attempt to %s it at once failed: %s", key, operation, error)
            return None
        except BaseException as error:
            if not is_panic(error):
                raise
            return None
        self._answered()
        return result


def _condition(if_version: str | None) -> dict[str, str]:
    if if_version is None:
        return {}
    return {"If-None-Match": "*"} if if_version == ABSENT else {"If-Match": f'"{if_version}"'}


class _Refused(Exception):
    """The service answered with a failure."""


class _Signed:
    """Requests without a body, signed by the SDK's signer, over connections that are used again."""

    def __init__(self, settings: S3Settings, sdk: Sdk) -> None:
        self._settings = settings
        self._sdk = sdk
        self._lock = threading.Lock()
        self._base = ""
        self._region = ""
        self._secure: ssl.SSLContext | None = None
        self._closed = False
        self._free: list[tuple[http.client.HTTPConnection, float]] = []

    def send(self, method: str, key: str, headers: Mapping[str, str]) -> bytes:
        """The body of a successful answer; raises whatever went wrong otherwise."""
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        self._prepare()
        request = AWSRequest(method, self._base + quote(key, safe="/~"), headers=dict(headers))
        self._settings.credentials.sign(request, self._region)
        connection = self._connection()
        try:
            # A path alone, as the signer took it.
            connection.request(method, str(urlsplit(request.url).path), b"", dict(request.headers.items()))
            answer = connection.getresponse()
            body = answer.read()
        except BaseException:  # whatever it was: the connection is in the middle of an answer
            connection.close()
            raise
        self._keep(connection)
        if answer.status >= http.client.MULTIPLE_CHOICES:
            raise _Refused(f"{answer.status} {body[:200]!r}")
        return body

    def close(self) -> None:
        """Release the connections; later ones are not kept."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection, _ in free:
            connection.close()

    def _prepare(self) -> None:
        with self._lock:
            if self._base:
                return
            from botocore.utils import get_environ_proxies  # noqa: PLC0415

            client = self._sdk.client()
            if get_environ_proxies(client.meta.endpoint_url):
                raise _Refused("requests go through a proxy, which is left to the SDK")
            self._region = client.meta.region_name
            self._secure = self._sdk.secure()
            self._base = self._sdk.address()

    def _connection(self) -> http.client.HTTPConnection:
        """One that was used a moment ago, or a new one."""
        with self._lock:
            while self._free:
                connection, used = self._free.pop()
                if time.monotonic() - used < IDLE_MOST:
                    return connection
                connection.close()
        parts = urlsplit(self._base)
        patience = min(PATIENCE, self._settings.timeout)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=patience, context=self._secure)
        return http.client.HTTPConnection(parts.netloc, timeout=patience)

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed:
                self._free.append((connection, time.monotonic()))
                return
        connection.close()
