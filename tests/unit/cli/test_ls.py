"""``fsdriver ls`` on a folder."""

from __future__ import annotations

import pytest

from fsdriver.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for place in ("CACHE", "STATE", "RUNTIME"):
        monkeypatch.setenv(f"FSDRIVER_{place}_DIR", str(tmp_path / place.lower()))
    monkeypatch.setenv("FSDRIVER_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("bytes")
    (folder / "sub" / "c.txt").write_text("more")
    return folder


def test_names_of_one_level(folder, capsys):
    assert main(["ls", str(folder)]) == 0
    assert capsys.readouterr().out == "b.txt\nsub\n"


def test_attributes(folder, capsys):
    (folder / "b.txt").chmod(0o640)
    assert main(["ls", "-l", f"file://{folder}"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("-rw-r-----              5 ")
    assert second.startswith("drwx")


def test_keys_as_the_store_has_them(folder, capsys):
    assert main(["ls", "--raw", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert f'"{str(folder)[1:]}/sub/c.txt"' in listed


@pytest.mark.parametrize(
    ("url", "words"),
    [("{}/none", "does not exist"), ("s3x://b", "unknown scheme 's3x'; did you mean 's3'?"), ("b/x", "no scheme")],
)
def test_what_cannot_be_listed(folder, capsys, url, words):
    assert main(["ls", url.format(folder)]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
