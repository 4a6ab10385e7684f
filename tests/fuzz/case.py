"""What one case of the fuzz tests consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from hypothesis.strategies import SearchStrategy


@dataclass
class Case:
    """Examples, the check each is given to, and what ends the case."""

    examples: SearchStrategy[Any]
    check: Callable[[Any], None]
    end: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def plain(examples: SearchStrategy[Any], check: Callable[[Any], None]) -> Callable[[object], Case]:
    """A case that needs no place."""
    return lambda _: Case(examples, check)
