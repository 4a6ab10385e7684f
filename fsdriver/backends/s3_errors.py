"""Failures of S3, from either client, as the errors of the driver.

obstore's exceptions carry neither status nor code: both are read from their text here and nowhere else. The texts are
pinned by tests against a real server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from fsdriver.errors import (
    AccessDenied,
    BackendError,
    ContainerMissing,
    Corrupt,
    FsdriverError,
    NameTooLong,
    NoSpace,
    NotFound,
    Stale,
    Throttled,
    TimedOut,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
"""In an answer's body, or in obstore's words for one key of a bulk delete."""
_MESSAGE: Final = re.compile(r"<Message>([^<]*)</Message>")
_SECONDS: Final = re.compile("[0-9]{1,9}")
_KIND: Final = re.compile(r"kind: (Connect|Timeout|Interrupted|Request|Decode|Unknown)")

_THROTTLED: Final = {
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
}  # fmt: skip
_DENIED: Final = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled",
    "AccountProblem", "RequestTimeTooSkewed", "TokenRefreshRequired", "NotSignedUp",
}  # fmt: skip
_REDIRECT: Final = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_AGAIN: Final = {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "InternalError", "IncompleteBody"}

_DAMAGED: Final = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of one failed request.

    Attributes
    ----------
    status : int
        HTTP status; 0 where no answer came.
    code : str
        S3's error code, or the kind of the transport's failure (``Connect``, ``Timeout``, ``Interrupted`` …), or
        ``""``.
    detail : str
        The service's or the client's own words, one line.
    retry_after : float or None
        Seconds.
    """

    status: int
    code: str
    detail: str
    retry_after: float | None = None


def failure_of(error: BaseException) -> Failure:
    """Read status and code from an exception of obstore, botocore or urllib3."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore.exceptions.ClientError
        return _from_botocore(response)
    text = str(error)
    name = type(error).__name__
    status, code, message, kind = (pattern.search(text) for pattern in (_STATUS, _CODE, _MESSAGE, _KIND))
    number = int(status.group(1)) if status else 0
    if "incorrectly configured region" in text:
        return Failure(301, "PermanentRedirect", "the service redirects to another region")
    if name == "UnauthenticatedError":
        return Failure(0, "AccessDenied", text.splitlines()[0])
    label = (
        code.group(1) or code.group(2)
        if code
        else _transport(name, text, kind.group(1) if kind else "")
        if not number
        else ""
    )
    return Failure(number, label, message.group(1) if message else text.split("\n", 1)[0])


def is_panic(error: BaseException) -> bool:
    """Obstore's Rust code panicked, which is raised past Exception."""
    return type(error).__name__ == "PanicException"


def _transport(name: str, text: str, kind: str) -> str:
    """Kind of a failure without an answer, from obstore's ``kind:``, or the class names of botocore and urllib3."""
    if "Timeout" in name or kind == "Timeout" or "TimedOut" in text:
        return "Timeout"
    if kind:
        return kind
    if name in {"EndpointConnectionError", "NewConnectionError", "MaxRetryError", "ProxyConnectionError", "SSLError"}:
        return "Connect"
    if name in {
        "ConnectionClosedError",
        "ProtocolError",
        "HTTPClientError",
        "ResponseStreamingError",
        "IncompleteReadError",
        "ClientPayloadError",
        "ServerDisconnectedError",
        "ClientOSError",
    }:
        return "Interrupted"
    if name == "NoCredentialsError":
        return "AccessDenied"
    return "Panic" if "panic" in text.lower() or "Panic" in name else ""


def _from_botocore(response: dict[str, Any]) -> Failure:
    details = response.get("Error", {})
    answer = response.get("ResponseMetadata", {})
    code = str(details.get("Code", ""))
    headers = answer.get("HTTPHeaders", {})
    return Failure(
        int(answer.get("HTTPStatusCode", 0)),
        "" if code.isdigit() else code,  # a HEAD has no body: botocore puts the status there
        str(details.get("Message", "")),
        _seconds(headers.get("retry-after")),
    )


def failure_of_answer(status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """Read an HTTP answer that is no success."""
    text = body.decode("utf-8", "replace")
    code, message = _CODE.search(text), _MESSAGE.search(text)
    return Failure(
        status,
        (code.group(1) or "") if code else "",
        message.group(1) if message else "",
        _seconds(headers.get("Retry-After")),
    )


def _seconds(header: str | None) -> float | None:
    """Of a Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    if header is None or _SECONDS.fullmatch(header):
        return None if header is None else float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def to_error(failure: Failure, key: str, bucket: str, location: str) -> FsdriverError:
    """The driver's error for a failed request on ``key`` (``""``: on the bucket)."""
    status, code = failure.status, failure.code
    path = key or bucket
    said = f"{location} answered {status} {code}".rstrip() if status else code
    said += f" ({failure.detail})" if failure.detail else ""
    error: FsdriverError
    if code == "NoSuchBucket" or (status == 404 and not key):
        error = ContainerMissing(
            f"the bucket {bucket!r} does not exist at {location}; create it, or correct the url or 'endpoint'", path
        )
    elif code == "NoSuchUpload":
        error = BackendError("the multipart upload was removed before it was complete; write the object again", path)
    elif code == "NoSuchKey" or status == 404:
        error = NotFound(f"no such object in bucket {bucket!r}", path)
    elif code == "PreconditionFailed" or status == 412:
        error = Stale("the object was changed by someone else meanwhile; read it again", path)
    elif code in _REDIRECT or status in {301, 307}:
        error = BackendError(f"{said}: the bucket {bucket!r} is in another region; set 'region' of the backend", path)
    elif code in {"QuotaExceeded", "InsufficientStorage"} or status == 507:
        error = NoSpace(f"{said}; the bucket {bucket!r} is full", path)
    elif code in _DENIED or status in {401, 403}:
        error = AccessDenied(
            f"{said}; check access_key_id and secret_access_key (or AWS_*), their rights on bucket {bucket!r}, and the "
            "clock",
            path,
        )
    elif code in _THROTTLED or status in {429, 503}:
        error = Throttled(f"{said}: the service asks for fewer requests", path)
    elif code in _DAMAGED:
        error = Corrupt(f"{said}: the bytes were damaged on their way there", path)
        error.temporary = True
    elif code == "KeyTooLongError":
        error = NameTooLong(f"{said}; S3 keys have at most 1,024 bytes", path)
    elif code == "Connect":
        error = Unreachable(
            f"no connection to {location}: check 'endpoint', the network and that the service runs", path
        )
    elif code == "Timeout":
        error = TimedOut(
            f"{location} gave no answer in time; raise 'timeout' or 'connect_timeout' if it is that slow", path
        )
    elif code in {"Interrupted", "Request", "Decode"} and not status:
        error = Unreachable(f"the connection to {location} broke: {failure.detail}", path)
    else:
        error = BackendError(f"{said or 'the request failed'}", path)
        error.temporary = code in _AGAIN or status in {408, 409, 500, 502, 504}
    if isinstance(error, BackendError):
        error.retry_after = failure.retry_after
    return error
