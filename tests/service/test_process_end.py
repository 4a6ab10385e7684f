"""A Python process that ends carries out what it owes, also where that is no more than attributes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fsdriver.config import Config
from fsdriver.engine import open_engine

pytestmark = pytest.mark.service

PROGRAM = """
import json, sys
from fsdriver.config import Config
from fsdriver.engine import open_engine
from fsdriver.entry import Changes
from fsdriver.runtime import run
engine = open_engine(Config.model_validate(json.loads(sys.argv[1])), write="back")
route, _ = engine.route("/data")
run(route.publish("f", b"content"))
if sys.argv[2] == "attributes":
    run(route.sync())
    run(route.set_attributes("f", Changes(mode=0o4711)))
"""


@pytest.mark.parametrize("what", ["contents", "attributes"])
@pytest.mark.parametrize("config", ["local_config", "s3_config"])
def test_what_is_owed_at_the_end_is_sent(config: str, what: str, request: pytest.FixtureRequest) -> None:
    """Nothing is left to the next process."""
    tree: dict[str, Any] = request.getfixturevalue(config)
    subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(tree), what], check=True, timeout=60)
    assert not open_engine(Config.model_validate(tree)).owes()
