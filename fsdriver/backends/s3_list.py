"""Listing a bucket, exactly: every key as it is, in pages, whatever characters it has.

A ListObjectsV2 request is signed in its headers (a URL ends up in messages of errors, and must hold no signature), sent
through the SDK's connections, and its answer read by `fsdriver.backends.s3_page`: the SDK's own parser takes some thirty times
the processor time, and obstore's lister drops the ``/`` of markers and fails on any key it does not accept. Keys travel
percent-encoded (``encoding-type=url``), so control characters in them are valid XML.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from fsdriver.backends.model import Page
from fsdriver.backends.s3_errors import failure_of, failure_of_answer, to_error
from fsdriver.backends.s3_page import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdriver.backends.s3_settings import S3Settings

PAGE_SIZE: Final = 1000


class Lister:
    """Fetches pages of one bucket; blocking, for worker threads.

    Parameters
    ----------
    client : callable
        Gives the SDK's client.
    address : callable
        Gives the URL of the bucket, up to where a key begins.
    """

    def __init__(self, settings: S3Settings, client: Callable[[], Any], address: Callable[[], str]) -> None:
        self._settings = settings
        self._client = client
        self._address = address
        self._session: Any = None

    def page(
        self, prefix: str, delimiter: bool, start_after: str, token: str | None, limit: int = PAGE_SIZE
    ) -> tuple[Page, str | None]:
        """At most ``limit`` entries, and the token of the next page."""
        bucket, location = self._settings.bucket, self._settings.location
        parameters = {"list-type": "2", "prefix": prefix, "max-keys": str(limit), "encoding-type": "url"}
        if delimiter:
            parameters["delimiter"] = "/"
        if token is not None:
            parameters["continuation-token"] = token
        elif start_after:
            parameters["start-after"] = start_after
        request = AWSRequest("GET", f"{self._address()}?{urlencode(parameters, quote_via=quote, safe='~')}")
        try:
            self._settings.credentials.sign(request, self._client().meta.region_name)
            response = self._connections().send(request.prepare())
        except BotoCoreError as error:
            raise to_error(failure_of(error), "", bucket, location) from error
        if response.status_code != 200:
            failure = failure_of_answer(response.status_code, response.content, response.headers)
            raise to_error(failure, "", bucket, location)
        return parse(response.content, prefix, token)

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
