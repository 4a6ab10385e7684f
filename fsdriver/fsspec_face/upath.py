"""The class that universal_pathlib makes for ``tier://`` paths; found by its entry point, imported by nothing else."""

from __future__ import annotations

from upath import UPath


class TierPath(UPath):
    """``UPath("tier://data/table.csv")``: UPath's own behaviour suits the tree as it is."""
