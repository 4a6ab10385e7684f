"""Whatever reads bytes from outside is given any: what comes of it is an answer or an error of the driver, and nothing ends.

Some cases run in CI, a great many in the nightly run, which reports how many.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import connections, files, texts
from tests.fuzz.case import Case

CASES: dict[str, Callable[[Path], Case]] = {**texts.CASES, **files.CASES, **connections.CASES}
FEW = 40
MANY = 20_000


def fuzz(name: str, examples: int, place: Path) -> int:
    """Run a case; returns how many examples it was given."""
    count = 0
    with CASES[name](place) as case:

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case.examples)
        def check(example: object) -> None:
            nonlocal count
            count += 1
            case.check(example)

        check()
    return count


@pytest.mark.parametrize("name", CASES)
def test_any_bytes_from_outside(name: str, tmp_path: Path) -> None:
    assert fuzz(name, FEW, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_a_great_many(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    record_property(f"reliability:fuzz:{name}", fuzz(name, MANY, tmp_path))
