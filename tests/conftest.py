"""Plugins of the whole test suite."""

pytest_plugins = ["tests.fixtures_s3", "tests.fixtures_tier", "tests.leftovers"]
