"""Results as dictionaries, in the shapes that ipfs_kit_py gives: for callers that look at ``success`` rather than catch errors.

Failure is told by ``error`` (text) and ``error_type`` (name of the class).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypedDict


class DemotedItem(TypedDict):
    """One item that a sweep has moved down."""

    cid: str
    from_tier: str
    to_tier: str
    last_access_days: float


class Demotions(TypedDict):
    """Of ``check_for_demotions``."""

    success: bool
    operation: str
    timestamp: float
    demoted_items: list[DemotedItem]
    errors: list[str]


class Replicated(TypedDict):
    """Of ``check_replication_policy``."""

    success: bool
    operation: str
    cid: str
    current_tiers: list[str]
    replicated_to: list[str]


def standard_result(
    operation: str, *, clock: Callable[[], float] = time.time, correlation_id: str | None = None, **fields: Any
) -> dict[str, Any]:
    """The result of an operation that succeeded.

    Parameters
    ----------
    correlation_id : str, optional
        Of the request it belongs to; a new UUID by default.
    **fields
        What the operation itself has to say.
    """
    return {
        "success": True,
        "operation": operation,
        "timestamp": clock(),
        "correlation_id": correlation_id or str(uuid.uuid4()),
        **fields,
    }


def failed_result(
    operation: str,
    error: BaseException,
    *,
    clock: Callable[[], float] = time.time,
    correlation_id: str | None = None,
    error_type: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The result of an operation that failed.

    Parameters
    ----------
    error_type : str, optional
        By default the name of the error's class.
    """
    return {
        **standard_result(operation, clock=clock, correlation_id=correlation_id, **fields),
        "success": False,
        "error": str(error),
        "error_type": error_type or type(error).__name__,
    }


def demotions(timestamp: float, demoted: Sequence[DemotedItem], errors: Sequence[str]) -> Demotions:
    """Result of a pass that moves down what is idle; it succeeds if nothing failed."""
    return {
        "success": not errors,
        "operation": "check_for_demotions",
        "timestamp": timestamp,
        "demoted_items": list(demoted),
        "errors": list(errors),
    }


def replicated(
    cid: str, current_tiers: Sequence[str], replicated_to: Sequence[str], *, success: bool = True
) -> Replicated:
    """Result of making the copies of an item that its replication policy asks for."""
    return {
        "success": success,
        "operation": "check_replication_policy",
        "cid": cid,
        "current_tiers": list(current_tiers),
        "replicated_to": list(replicated_to),
    }
