"""Listing a bucket, exactly: every key as it is, in pages, whatever characters it has.

A ListObjectsV2 request is signed by the SDK (a presigned URL), sent through its connections and its answer parsed with
expat: the SDK's own parser takes some fifteen times the processor time, and obstore's lister drops the ``/`` of markers
and fails on any key it does not accept. Keys travel percent-encoded (``encoding-type=url``), so control characters in
them are valid XML.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus
from xml.parsers import expat

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from fsdriver.backends.model import ObjectInfo, Page
from fsdriver.backends.s3_errors import failure_of, failure_of_answer, to_error
from fsdriver.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdriver.backends.s3_settings import S3Settings

PAGE_SIZE: Final = 1000
SIGNATURE_LIFE: Final = 900
"""Seconds; a page is asked for at once, so this only has to bridge two clocks."""


@dataclass(slots=True)
class _Answer:
    """State of the parser of one ListBucketResult (Amazon S3 API Reference, ListObjectsV2)."""

    objects: list[ObjectInfo] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    token: str | None = None
    encoded: bool = False
    complete: bool = False
    _text: list[str] = field(default_factory=list)
    _fields: dict[str, str] = field(default_factory=dict)
    _inside: str = ""

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._text.clear()
        if name in {"Contents", "CommonPrefixes"}:
            self._inside = name
            self._fields = {}

    def end(self, name: str) -> None:
        text = "".join(self._text)
        self._text.clear()
        if name == "Contents":
            self.objects.append(self._object())
            self._inside = ""
        elif name == "CommonPrefixes":
            self.prefixes.append(self._fields.get("Prefix", ""))
            self._inside = ""
        elif self._inside:
            self._fields.setdefault(name, text)
        elif name == "NextContinuationToken":
            self.token = text or None
        elif name == "EncodingType":
            self.encoded = text == "url"
        elif name == "ListBucketResult":
            self.complete = True

    def text(self, data: str) -> None:
        self._text.append(data)

    def _object(self) -> ObjectInfo:
        fields = self._fields
        return ObjectInfo(
            key=fields["Key"],
            size=int(fields["Size"]),
            mtime_ns=nanoseconds(datetime.fromisoformat(fields["LastModified"])),
            version=fields.get("ETag", "").strip('"'),
        )


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since the epoch of an aware (or UTC) time, without the rounding of floats."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def parse(body: bytes) -> tuple[Page, str | None]:
    """One page and the token of the next.

    Raises
    ------
    BackendError
        The answer is cut off, or is no listing.
    """
    answer = _Answer()
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True
    parser.StartElementHandler = answer.start
    parser.EndElementHandler = answer.end
    parser.CharacterDataHandler = answer.text
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, KeyError, ValueError) as error:
        raise _broken(f"the listing cannot be read: {error!r}") from error
    if not answer.complete:
        raise _broken("the answer is no listing")
    decode: Callable[[str], str] = unquote_plus if answer.encoded else str
    objects = [
        ObjectInfo(decode(one.key), one.size, one.mtime_ns, one.version) if answer.encoded else one
        for one in answer.objects
    ]
    return Page(objects, [decode(prefix) for prefix in answer.prefixes]), answer.token


def _broken(message: str) -> BackendError:
    error = BackendError(message)
    error.temporary = True
    return error


class Lister:
    """Fetches pages of one bucket; blocking, for worker threads.

    Parameters
    ----------
    client : callable
        Gives the SDK's client, which signs.
    """

    def __init__(self, settings: S3Settings, client: Callable[[], Any]) -> None:
        self._settings = settings
        self._client = client
        self._session: Any = None

    def page(
        self, prefix: str, delimiter: bool, start_after: str, token: str | None, limit: int = PAGE_SIZE
    ) -> tuple[Page, str | None]:
        """At most ``limit`` entries, and the token of the next page."""
        bucket, location = self._settings.bucket, self._settings.location
        parameters: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": limit, "EncodingType": "url"}
        if delimiter:
            parameters["Delimiter"] = "/"
        if token is not None:
            parameters["ContinuationToken"] = token
        elif start_after:
            parameters["StartAfter"] = start_after
        url = self._client().generate_presigned_url("list_objects_v2", Params=parameters, ExpiresIn=SIGNATURE_LIFE)
        try:
            response = self._connections().send(AWSRequest("GET", url).prepare())
        except BotoCoreError as error:
            raise to_error(failure_of(error), "", bucket, location) from error
        if response.status_code != 200:
            failure = failure_of_answer(response.status_code, response.content, response.headers)
            raise to_error(failure, "", bucket, location)
        return parse(response.content)

    def _connections(self) -> Any:
        if self._session is None:
            settings, client = self._settings, self._client()
            make: Any = URLLib3Session  # its annotations are guesses
            self._session = make(
                verify=os.environ.get("AWS_CA_BUNDLE") or True,
                proxies=get_environ_proxies(client.meta.endpoint_url),
                timeout=(settings.connect_timeout, settings.timeout),
                max_pool_connections=settings.pool_size,
            )
        return self._session

    def close(self) -> None:
        """Release the connections."""
        if self._session is not None:
            self._session.close()
