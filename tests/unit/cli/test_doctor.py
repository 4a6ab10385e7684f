"""Single findings of ``fsdriver doctor``."""

from __future__ import annotations

import pytest

from fsdriver.cli.doctor import Level, allow_other, device, passthrough, weaknesses


def test_a_missing_or_false_device(tmp_path):
    assert device(tmp_path / "fuse").level is Level.FAIL
    (tmp_path / "fuse").touch()
    assert "mknod" in device(tmp_path / "fuse").remedy


def test_allow_other_is_read_past_comments(tmp_path):
    file = tmp_path / "fuse.conf"
    file.write_text("#user_allow_other\n")
    assert allow_other(file).level is Level.NOTE
    file.write_text("# text\nuser_allow_other\n")
    assert allow_other(file).level is Level.OK


@pytest.mark.parametrize(
    ("release", "capabilities", "level"),
    [
        ("6.8.0-41-generic", "000001ffffffffff", Level.NOTE),
        ("6.18.44-fc", "0000000000000000", Level.NOTE),
        ("6.9.1", "0000000000200000", Level.OK),
        ("7.0", "000001ffffffffff", Level.OK),
    ],
)
def test_passthrough_needs_kernel_and_capability(tmp_path, release, capabilities, level):
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapEff:\t{capabilities}\n")
    assert passthrough(release, status).level is level


CONFIG = """
[backend.plain]
url = "s3://b"
endpoint = "http://store:9000"
[backend.blind]
url = "s3://b"
endpoint = "https://store"
engine = "fsspec"
storage_options = { client_kwargs = { verify = false } }
[backend.safe]
url = "s3://b"
access_key_id = "id"
secret_access_key = "written"
"""


def test_what_gives_up_safety_is_told(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    file.chmod(0o644)
    monkeypatch.setenv("FSDRIVER_CONFIG", str(file))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    found = {one.subject: (one.level, one.text) for one in weaknesses()}
    assert found.keys() == {"backend plain", "backend blind", str(file)}
    assert "plain HTTP" in found["backend plain"][1]
    assert "not verified" in found["backend blind"][1]
    assert found[str(file)][0] is Level.FAIL
    file.chmod(0o600)
    assert str(file) not in {one.subject for one in weaknesses()}
