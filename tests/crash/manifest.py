"""What must be there after a crash, from what a writer noted of its work (programs/writer.py)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.programs.writer import DIRECTORY, digest

Names = dict[str, str]
"""Path → digest of its bytes, or `DIRECTORY`."""


@dataclass
class Change:
    """One change that was begun: what the names it touches hold before and after, and between, once it was synced."""

    kind: str
    after: dict[str, str | None]
    synced: dict[str, str | None] | None
    was_synced: bool = False


@dataclass
class Expected:
    """What a tree holds by what was acknowledged, and the changes under way that may have come to pass or not.

    Attributes
    ----------
    names : dict
    under_way : dict
        By number.
    counts : Counter
        Changes that were acknowledged, by kind; fsyncs as ``synced``.
    wrong : list of str
        What the writer itself saw.
    """

    names: Names = field(default_factory=dict)
    under_way: dict[int, Change] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def read(self, manifest: Path) -> None:
        """Take in the lines of one run of the writer; a line that was cut off was not acknowledged."""
        for line in manifest.read_text().splitlines():
            told = json.loads(line)
            if "synced" in told and "begin" not in told:
                self.under_way[told["synced"]].was_synced = True
                self.counts["synced"] += 1
            elif "done" in told:
                change = self.under_way.pop(told["done"])
                self.counts[change.kind] += 1
                self._apply(change.after)
            elif "refused" in told:
                self.under_way.pop(told["refused"], None)
            elif told["kind"] == "wrong":
                self.wrong.append(f"{told['name']} read as {told['seen']}")
            elif told["kind"] != "ready":
                self.under_way[told["begin"]] = Change(told["kind"], told["names"], told.get("synced"))

    def _apply(self, names: Mapping[str, str | None]) -> None:
        for name, value in names.items():
            if value is None:
                self.names.pop(name, None)
            else:
                self.names[name] = value

    def compare(self, found: Names) -> list[str]:
        """What differs from what is allowed; from then on, what was found is what is expected."""
        wrong = self.wrong
        self.wrong = []
        touched: set[str] = set()
        for change in self.under_way.values():
            touched |= change.after.keys()
            states: list[dict[str, str | None]] = [change.after]
            if change.synced is not None:
                states.append(change.synced)
            if not change.was_synced:
                states.append({name: self.names.get(name) for name in change.after})
            seen = {name: found.get(name) for name in change.after}
            if seen not in states:
                wrong.append(f"{change.kind} (synced: {change.was_synced}) left {seen}, not one of {states}")
        for name in sorted((found.keys() | self.names.keys()) - touched):
            if found.get(name) != self.names.get(name):
                wrong.append(f"{name} is {found.get(name)}, not {self.names.get(name)}")
        self.names, self.under_way = dict(found), {}
        return wrong


def tree_names(root: Path) -> Names:
    """What a mounted tree holds."""
    found: Names = {}
    for directory, folders, files in os.walk(root):
        inside = os.path.relpath(directory, root)
        base = "" if inside == "." else f"{inside}/"
        found.update({base + name: DIRECTORY for name in folders})
        for name in files:
            found[base + name] = digest(Path(directory, name).read_bytes())
    return {name: value for name, value in found.items() if "/" in name}
