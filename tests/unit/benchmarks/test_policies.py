"""The comparison of cache policies: patterns, ratios, and what is written of them."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks import policies
from benchmarks.patterns import PATTERNS, sizes


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_of_the_objects_and_repeat(name: str) -> None:
    once, again = (list(PATTERNS[name](50, 400)) for _ in range(2))
    assert once == again
    assert len(once) == 400
    assert set(once) <= set(range(50))


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_a_cache_of_everything_misses_each_object_once(policy: str) -> None:
    trace = list(PATTERNS["zipf"](50, 400))
    bytes_of = sizes(50)
    assert policies.hit_ratio(policy, trace, bytes_of, sum(bytes_of)) == pytest.approx(1 - len(set(trace)) / 400)


@pytest.mark.feature("S2-05")
def test_ours_keeps_what_others_lose() -> None:
    bytes_of = sizes(200)
    half = sum(bytes_of) // 2

    def ratio(policy: str, pattern: str) -> float:
        return policies.hit_ratio(policy, list(PATTERNS[pattern](200, 4000)), bytes_of, half)

    assert ratio("fsdriver", "loop") > 0.3 > ratio("LRU", "loop") == 0
    assert ratio("fsdriver", "shuffled epochs") > 1.3 * ratio("LRU", "shuffled epochs")


def test_the_page_and_the_plot() -> None:
    found = {
        name: {policy: [number / 10 for number in range(len(policies.SHARES))] for policy in policies.POLICIES}
        for name in PATTERNS
    }
    text = policies.page(found)
    assert text.count("\n| ") == 2 * (len(PATTERNS) + 1)
    root = ET.fromstring(policies.plot(found))
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == len(PATTERNS) * len(policies.POLICIES)
