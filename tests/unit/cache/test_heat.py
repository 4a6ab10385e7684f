"""Heat, against recorded values of ipfs_kit_py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fsdriver.cache.heat import HeatWeights, Uses, heat

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "cache_vectors.json").read_text())


@pytest.mark.feature("S2-08")
@pytest.mark.parametrize("case", VECTORS["heat_formula_idle_grid"], ids=str)
def test_heat_is_that_of_ipfs_kit_py(case: dict[str, Any]) -> None:
    assert heat(case["access_count"], case["age_s"], case["idle_s"]) == pytest.approx(case["heat"], rel=1e-9, abs=1e-9)


@pytest.mark.feature("S2-08")
@pytest.mark.parametrize("case", VECTORS["tiered_heat_score_at_access"]["cases"], ids=str)
def test_uses_heat_up(case: dict[str, Any]) -> None:
    given = VECTORS["tiered_heat_score_at_access"]["defaults"]
    weights = HeatWeights(
        given["frequency_weight"], given["recency_weight"], given["access_boost"], given["heat_decay_hours"]
    )
    first, *later = case["access_offsets_s"]
    uses = Uses(first, first)
    for moment in later:
        uses.note(moment)
    assert uses.count == case["frequency"]
    assert uses.heat(uses.last, weights) == pytest.approx(case["heat_score"], rel=1e-9, abs=1e-9)


def test_heat_is_of_the_moment_it_is_asked_for() -> None:
    uses = Uses(0.0, 0.0)
    assert uses.heat(0.0) > uses.heat(3599.0) > uses.heat(3600.0) > uses.heat(86400.0)
    assert (uses.first, uses.last, uses.count) == (0.0, 0.0, 1)
