"""The page of what was tried and survived is made of the properties that tests report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "generate_reliability.py"
RUN = """<testsuites><testsuite timestamp="2026-11-21T23:00:00">
<testcase classname="tests.crash.a" name="one"><properties>
<property name="reliability:crash:kills" value="40"/><property name="reliability:crash:losses" value="0"/>
<property name="reliability:recovery:10,000 files, seconds" value="12.5"/></properties></testcase>
<testcase classname="tests.crash.a" name="two"><properties>
<property name="reliability:crash:kills" value="1000"/><property name="reliability:new:things" value="3"/>
<property name="reliability:recovery:10,000 files, seconds" value="11"/></properties></testcase>
<testcase classname="tests.crash.a" name="three"><failure message="lost"/></testcase>
<testcase classname="tests.crash.a" name="four"><skipped/></testcase>
</testsuite></testsuites>"""


def test_the_page(tmp_path: Path) -> None:
    (tmp_path / "run.xml").write_text(RUN)
    page = tmp_path / "page.md"
    subprocess.run([sys.executable, SCRIPT, tmp_path / "run.xml", "--output", page], check=True)
    text = page.read_text()
    assert "3 tests ran on 2026-11-21; 1 failed." in text
    assert "- failed: `tests.crash.a.three`" in text
    assert "| kills | 1,040 |" in text
    assert "| losses | 0 |" in text
    assert "| 10,000 files, seconds | 12.5 |" in text
    assert "## New\n\n| | |\n|---|---:|\n| things | 3 |" in text
