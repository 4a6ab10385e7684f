"""What all tables of the configuration have in common."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

Where: TypeAlias = tuple[str | int, ...]
"""The steps to a key, from the top of the configuration."""


class Table(BaseModel):
    """A table of the dialect: unknown keys are errors, and no error or dump repeats a value that may be secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


def wrong(where: Where, message: str) -> PydanticCustomError:
    """An error of a model as a whole that still knows which key is to blame (read by `fsdriver.config.explain`)."""
    return PydanticCustomError("fsdriver", "{message}", {"message": message, "where": list(where)})
