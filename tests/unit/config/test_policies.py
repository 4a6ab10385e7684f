"""The tables of policies: what they say, and how mistakes in them are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdriver.config import load
from fsdriver.errors import ConfigError

STACK = """\
[backend.nvme]
url = "/n"
[backend.hot]
url = "/h"
[backend.archive]
url = "/a"
[backend.other]
url = "/o"
[[route]]
tiers = ["nvme", "hot"]
replicate = ["archive"]
policy = "slow"
[policy.slow]
"""


def loaded(tmp_path: Path, text: str):
    path = tmp_path / "config.toml"
    path.write_text(STACK + text)
    return load(path, {})


def test_a_policy_and_its_tiers(tmp_path: Path) -> None:
    policy = loaded(
        tmp_path,
        'idle_threshold = "30d"\nhigh_value = 7\nenter = "hot"\nreplication = "high_value"\ntier_limits = { hot = "1 TiB" }\n'
        '[policy.slow.tier.nvme]\nrole = "cache"\nmax_bytes = "10 GiB"\nidle_threshold = "1d"\npromotion_accesses = 3\n'
        "[policy.slow.tier.archive]\ncopy_accesses = 5\n",
    ).policy["slow"]
    assert (policy.idle_threshold, policy.high_value, policy.enter, policy.replication) == (
        2592000,
        7,
        "hot",
        "high_value",
    )
    assert policy.tier_limits == {"hot": 1 << 40}
    nvme = policy.tier["nvme"]
    assert (nvme.role, nvme.max_bytes, nvme.idle_threshold, nvme.promotion_accesses) == ("cache", 10 << 30, 86400, 3)
    assert policy.tier["archive"].copy_accesses == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[policy.slow.tier.nvem]\n", "line 14: policy.slow.tier.nvem: there is no backend 'nvem'; did you mean 'nvme'?"),
        ('tier_limits = { arhive = "1G" }\n', "line 14: policy.slow.tier_limits.arhive: there is no backend 'arhive'"),
        ("[policy.slow.tier.other]\n", "line 14: policy.slow.tier.other: 'other' is a tier of no route with this policy"),
        ('enter = "ht"\n', "line 14: policy.slow.enter: there is no backend 'ht'; did you mean 'hot'?"),
        ('[[route]]\npath="/b"\ntiers=["other"]\npolicy="slow"\n[policy.slow.tier.hot]\n[policy.x]\nenter="hot"\n', ""),
        (
            'enter="hot"\n[[route]]\npath="/b"\ntiers=["other"]\npolicy="slow"\n',
            "line 14: policy.slow.enter: 'hot' is not a tier of every route with this policy",
        ),
        (
            "promotion_threshold = 3\n[policy.slow.tier.hot]\ndemotion_threshold = 3\n",
            "line 16: policy.slow.tier.hot.demotion_threshold: 3 is not below the promotion_threshold, 3",
        ),
        ("demotion_threshold = 4\npromotion_threshold = 3\n", "line 14: policy.slow.demotion_threshold: 4 is not below"),
        (
            'tier_limits = { hot = "1G" }\n[policy.slow.tier.hot]\nmax_bytes = "2G"\n',
            "line 16: policy.slow.tier.hot.max_bytes: tier_limits names this tier too",
        ),
        ("[policy.slow.tier.hot]\nmax_age = 3\n", "policy.slow.tier.hot.max_age: unknown key; "),
        ('replication = "some"\n', "line 14: policy.slow.replication: must be 'none', 'high_value' or 'all'"),
        ('[policy.slow.tier.hot]\nrole = "fast"\n', "line 15: policy.slow.tier.hot.role: must be 'store', 'cache' or"),
        ('[policy.slow.tier.hot]\nrole = "cache"\n[policy.slow.tier.nvme]\nrole = "cache"\n', "only copy"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    if not words:
        loaded(tmp_path, text)
        return
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
