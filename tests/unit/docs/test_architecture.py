"""The map of the modules has every module of the rooms it goes into, and none that is not there."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAP = (ROOT / "docs" / "architecture.md").read_text().partition("## Map of the modules")[2]
ROWS = [line.strip("| ").split(" | ", 1) for line in MAP.splitlines() if line.startswith("| `")]


def room(named: str) -> Path:
    """Folder of a row, e.g. of ```cache/` (`fsdriver.cache`)``."""
    (name,) = re.findall(r"`((?:\w+/)+)`", named)
    return next(path for path in (ROOT / "fsdriver" / name, ROOT / name) if path.is_dir())


@pytest.mark.parametrize("row", [row for row in ROWS if "/`" in row[0] and ".py`" in row[1]], ids=lambda row: row[0])
def test_the_map_names_the_modules_there_are(row: list[str]) -> None:
    named = set(re.findall(r"`([\w*]+\.py)`", row[1]))
    modules = {path.name for path in room(row[0]).glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {module for module in modules if not any(fnmatch(module, name) for name in named)} == set()
    assert {name for name in named if not any(fnmatch(module, name) for module in modules)} == set()


def test_every_room_is_on_the_map() -> None:
    rooms = {path.parent.name for path in (ROOT / "fsdriver").glob("*/__init__.py")}
    assert {name for name in rooms if not any(f"{name}/`" in row[0] for row in ROWS)} == set()
