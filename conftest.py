"""Plugins of the whole test suite."""

from __future__ import annotations
