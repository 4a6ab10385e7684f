"""Storage services behind one interface; `open_backend` makes the one a URL asks for."""

from __future__ import annotations

from fsdriver.backends.base import ABSENT, Backend, Capabilities, Counters, ObjectInfo, Page, Part, Source
from fsdriver.backends.opening import open_backend
from fsdriver.backends.retry import RetryPolicy
from fsdriver.backends.weaknesses import weakness

__all__ = [
    "ABSENT",
    "Backend",
    "Capabilities",
    "Counters",
    "ObjectInfo",
    "Page",
    "Part",
    "RetryPolicy",
    "Source",
    "open_backend",
    "weakness",
]
