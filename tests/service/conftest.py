"""Routes on real stores, in both write modes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.config import Config
from fsdriver.engine import open_engine
from tests.service.routes import Tree


@pytest.fixture(params=["local", "s3", "stack"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.getfixturevalue(f"{request.param}_config")


@pytest.fixture(params=["back", "through"])
def tree(config: dict[str, Any], tier_places: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    tree = Tree(config, tier_places, request.param, open_engine(Config.model_validate(config), write=request.param))
    yield tree
    tree.engine.close()
