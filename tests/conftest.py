"""Plugins of the whole test suite."""

import signal

from hypothesis import settings

pytest_plugins = ["tests.fixtures_s3", "tests.fixtures_tier", "tests.leftovers"]


def pytest_configure() -> None:
    # A shell has what it starts in the background ignore SIGINT, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes says how busy the machine is.
    settings.register_profile("fsdriver", deadline=None)
    settings.load_profile("fsdriver")
