"""Translates the table ``[storage.s3]`` of earlier programs into the one dialect.

Its keys: ``bucket``, ``region``, ``endpoint``, ``access_key_id``, ``secret_access_key``, ``path_style`` (false),
``pool_size`` (10), ``timeout_secs`` (30), ``max_retries`` (3). It becomes the backend ``s3`` and,
unless a route ``/`` is configured, the route ``/`` over it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from fsdriver.config.values import Seconds, Secret

BACKEND: Final = "s3"


class S3Table(BaseModel):
    """``[storage.s3]`` as it is written; a key it does not have is an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    bucket: str = Field(min_length=1)
    region: str = "us-east-1"
    endpoint: str | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    path_style: bool = False
    pool_size: int = Field(default=10, ge=1)
    timeout_secs: Annotated[Seconds, Field(gt=0)] = 30.0
    max_retries: int = Field(default=3, ge=0)


class StorageTable(BaseModel):
    """``[storage]``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    s3: S3Table | None = None


def translate(data: dict[str, Any]) -> dict[str, Any]:
    """The same configuration without ``[storage]``; unchanged where there is none.

    Raises
    ------
    pydantic.ValidationError
        The table is wrong; locations begin inside ``storage``.
    """
    if "storage" not in data:
        return data
    rest = {key: value for key, value in data.items() if key != "storage"}
    table = StorageTable.model_validate(data["storage"]).s3
    if table is None:
        return rest
    backend = {
        "url": f"s3://{table.bucket}",
        "timeout": table.timeout_secs,
        "retries": table.max_retries,
        **table.model_dump(exclude={"bucket", "timeout_secs", "max_retries"}, exclude_none=True),
    }
    for key in ("access_key_id", "secret_access_key"):
        if getattr(table, key) is not None:
            backend[key] = getattr(table, key)
    rest["backend"] = {BACKEND: backend, **rest.get("backend", {})}
    routes = rest.get("route", [])
    if not any(route.get("path", "/") == "/" for route in routes):
        rest["route"] = [*routes, {"path": "/", "tiers": [BACKEND]}]
    return rest
