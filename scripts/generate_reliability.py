"""Writes docs/reliability.md from the junit XML of ``make nightly`` (and of other runs): what was tried, and what was lost.

Tests report numbers with ``record_property("reliability:<group>:<name>", number)``. Equal names are added up, but for the worst
of times and the like: those whose name ends in a unit after a comma.
"""

from __future__ import annotations

import argparse
import datetime as dt
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reliability.md"
MARK: Final = "reliability"
UNITS: Final = ("ms", "s", "seconds", "MiB", "bytes", "p99")
TITLES: Final = {
    "crash": (
        "Crashes",
        "SIGKILL at random moments under load, restart, comparison with a manifest that the writer kept.",
    ),
    "power": (
        "Power failures",
        "The disk is shut down without writing back what nobody has synced; or the journal's log is cut at a byte.",
    ),
    "recovery": (
        "Recovery",
        "A daemon was killed that had 10,000 small files to send: the store, on the same two processors, did not answer.",
    ),
    "faults": ("Faults", "A proxy between this program and a real S3 server; each kind was survived this often."),
    "stall": ("Stalls", "What a route notices of another whose store hangs."),
    "fuzz": ("Fuzzing", "Inputs that were tried, and did no harm."),
}
HEAD: Final = """\
# Reliability

What is promised is in [durability.md](durability.md). Here is how often it was tried, and what came of it. This page is
generated from a run of the tests: `make nightly`, then `scripts/generate_reliability.py nightly.xml`. A test that finds a loss
fails, and is named below; the seed that it prints repeats it.
"""


def read(files: Iterable[Path]) -> tuple[dict[str, dict[str, float]], list[str], int, str]:
    """(group → name → number, failed tests, tests that ran, day of the last run)."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    failed: list[str] = []
    ran, day = 0, ""
    for file in files:
        tree = ET.parse(file)  # noqa: S314 - written by our own test run
        for suite in tree.iter("testsuite"):
            day = max(day, suite.get("timestamp", "")[:10])
        for case in tree.iter("testcase"):
            if case.find("skipped") is not None:
                continue
            ran += 1
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(f"{case.get('classname')}.{case.get('name')}")
            for entry in case.iter("property"):
                kind, _, rest = (entry.get("name") or "").partition(":")
                if kind == MARK:
                    group, _, name = rest.partition(":")
                    _add(found[group], name, float(entry.get("value") or 0))
    return found, failed, ran, day or dt.datetime.now(dt.UTC).date().isoformat()


def _add(names: dict[str, float], name: str, value: float) -> None:
    worst = name.rpartition(" ")[2] in UNITS
    names[name] = max(names.get(name, 0.0), value) if worst else names.get(name, 0.0) + value


def page(found: dict[str, dict[str, float]], failed: list[str], ran: int, day: str) -> str:
    """The page as text."""
    lines = [HEAD, f"{ran:,} tests ran on {day}; {len(failed):,} failed.", ""]
    lines += [f"- failed: `{name}`" for name in sorted(failed)] + ([""] if failed else [])
    for group in [*TITLES, *sorted(found.keys() - TITLES.keys())]:
        if group not in found:
            continue
        title, about = TITLES.get(group, (group.capitalize(), ""))
        lines += [f"## {title}", ""] + ([about, ""] if about else []) + ["| | |", "|---|---:|"]
        lines += [f"| {name} | {value:,.10g} |" for name, value in sorted(found[group].items())] + [""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Read the files given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="XML")
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args()
    given.output.write_text(page(*read(given.files)), encoding="utf-8")


if __name__ == "__main__":
    main()
