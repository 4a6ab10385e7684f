"""The page of figures: what is measured again takes its row's place, what is not stays."""

from __future__ import annotations

import pytest

from benchmarks.harness import Figure, Result, choose
from benchmarks.page import merged
from benchmarks.report import row

W6 = Figure("W6.back", "create", "files/s", "back", "native", 0.5)
W7 = Figure("W7.warm", "find", "entries/s", against="native", limit=0.5)


def result(figure: Figure, ours: float, *, count: str = "1 PUT") -> Result:
    return Result(figure, [ours] * 3, [100.0] * 3, {figure.side: {"S3": count}})


def test_rows_and_counts_are_merged():
    first = merged("", [result(W6, 10), result(W7, 60)], "machine", "2001-01-01")
    second = merged(first, [result(W6, 80, count="2 PUT")], "machine", "2001-01-02")
    rows = [line for line in second.splitlines() if line.startswith("| W")]
    assert [line.split(" | ")[0] for line in rows] == ["| W6.back", "| W7.warm"]
    assert "0.80" in rows[0]
    assert "2001-01-02" in rows[0]
    assert "0.60" in rows[1]
    assert "2001-01-01" in rows[1]
    assert "- W6 back: S3 2 PUT." in second
    assert "1 PUT" in second.partition("W7")[2]


def test_rows_of_another_machine_are_not_mixed():
    first = merged("", [result(W6, 10), result(W7, 60)], "machine", "2001-01-01")
    with pytest.raises(ValueError, match="another machine"):
        merged(first, [result(W6, 80)], "another", "2001-01-02")
    assert "another" in merged(first, [result(W6, 80), result(W7, 60)], "another", "2001-01-02")


def test_a_goal_that_is_missed_says_by_how_much():
    assert row(result(W6, 40))[-1] == "**no**: 0.40 instead of 0.50"
    assert row(result(W6, 60))[-1] == "yes"
    failed = Result(W6, error="FAIL: a wrong byte")
    assert row(failed)[-1] == "FAIL: a wrong byte"


def test_a_name_means_its_workload_or_one_figure():
    assert {figure.name for one in choose(["W1"], {"s3fs", "rclone", "juicefs"}) for figure in one.figures} == {
        "W1",
        "W1.kept",
    }
    assert [figure.name for one in choose(["W6.back"], {"rclone"}) for figure in one.figures] == ["W6.back"]
    with pytest.raises(KeyError):
        choose(["W99"], set())
