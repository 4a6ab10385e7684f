"""What the daemon does for and against the machine it runs on."""

from __future__ import annotations

import logging

import pytest

from fsdriver.fuse_mount.service import OneLine


@pytest.mark.parametrize("name", ["a\nERROR fsdriver: forged", "a\r\x1b[2J", "a\u2028b", "caf\udce9"])
def test_a_name_forges_no_line_of_the_log(name: str) -> None:
    record = logging.LogRecord("fsdriver", logging.WARNING, "", 1, "%s: failed", (name,), None)
    line = OneLine("%(levelname)s %(message)s").format(record)
    assert line.isprintable()
    line.encode()
    assert line.startswith(("WARNING a", "WARNING caf"))


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.LogRecord("fsdriver", logging.ERROR, "", 1, "failed", (), (type(error), error, None))
    assert OneLine("%(message)s").format(record) == "failed\nValueError: x"
