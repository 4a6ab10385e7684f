"""Results as dictionaries have the shapes of ipfs_kit_py."""

from __future__ import annotations

import uuid

from fsdriver.errors import NotFound
from fsdriver.results import demotions, failed_result, replicated, standard_result


def test_a_standard_result() -> None:
    made = standard_result("store_add", clock=lambda: 12.5, cid="Qm")
    assert made == {
        "success": True,
        "operation": "store_add",
        "timestamp": 12.5,
        "correlation_id": made["correlation_id"],
        "cid": "Qm",
    }
    assert str(uuid.UUID(made["correlation_id"])) == made["correlation_id"]
    assert standard_result("x", correlation_id="given")["correlation_id"] == "given"


def test_a_failure_names_its_cause() -> None:
    made = failed_result("store_get", NotFound("no such object", "Qm"), clock=lambda: 1.0, correlation_id="c")
    assert made == {
        "success": False,
        "operation": "store_get",
        "timestamp": 1.0,
        "correlation_id": "c",
        "error": "Qm: no such object",
        "error_type": "NotFound",
    }
    assert failed_result("x", ValueError("no"), error_type="ValidationError")["error_type"] == "ValidationError"


def test_demotions() -> None:
    item = {"cid": "Qm", "from_tier": "memory", "to_tier": "disk", "last_access_days": 31.0}
    assert demotions(3.0, [item], []) == {
        "success": True,
        "operation": "check_for_demotions",
        "timestamp": 3.0,
        "demoted_items": [item],
        "errors": [],
    }
    assert demotions(3.0, [], ["Qm: the store is away"])["success"] is False


def test_replicated() -> None:
    assert replicated("Qm", ["memory", "disk"], ["s3"]) == {
        "success": True,
        "operation": "check_replication_policy",
        "cid": "Qm",
        "current_tiers": ["memory", "disk"],
        "replicated_to": ["s3"],
    }
