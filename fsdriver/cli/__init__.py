"""The command ``fsdriver``.

Command modules import what they need when they run, so that ``--help`` and mistakes are quick.
"""

from __future__ import annotations

from fsdriver.cli.app import main

__all__ = ["main"]
