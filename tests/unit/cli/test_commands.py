"""The command line: errors in one line, exit statuses, and what commands import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fsdriver.cli import main
from fsdriver.cli.mounts import locate, mounted
from fsdriver.cli.options import parse_options
from fsdriver.errors import NotFound
from fsdriver.fuse_mount.mounts import Mounted


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    monkeypatch.setattr("fsdriver.config.loading.SYSTEM_DIRECTORY", tmp_path / "none")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for place in ("CACHE", "STATE", "RUNTIME"):
        monkeypatch.setenv(f"FSDRIVER_{place}_DIR", str(tmp_path / place.lower()))


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom fsdriver.cli import main\nassert main(['--help']) == 0\n"
        "heavy = {'pydantic', 'rich', 'fsspec', 'obstore', 'asyncio', 'boto3'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "Commands:" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["mount"],
        ["mount", "a", "b", "c"],
        ["mount", "/mnt"],
        ["umount"],
        ["config", "check", "a", "b"],
        ["ls"],
        ["warm"],
        ["warm", "--jobs", "0", "/x"],
        ["warm", "--jobs", "many", "/x"],
        ["evict"],
        ["pin"],
        ["unpin"],
    ],
)
def test_mistakes_in_the_arguments_give_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mount", "/mnt", "s3://bucket"], "the URL comes first"),
        (["mount", "s3://bucket"], "s3://bucket is no directory"),
        (["mount", "s3://bucket", "/mnt", "-o", "=3"], "an option has no name"),
        (["mount", "--config", "/", "/mnt"], "this is a directory, no configuration file"),
        (["ls", "foo://bucket"], "unknown scheme 'foo'; s3, file, direct and"),
        (["ls", "s3://bucket"], "AWS_ENDPOINT_URL: 'host:9000' is no URL; write http://host:9000"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(arguments, words, capsys, tier_places, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "host:9000")
    assert main(arguments) in {1, 2}
    assert words in capsys.readouterr().err


def test_an_error_is_one_line_and_gives_1(tmp_path, capsys):
    file = tmp_path / "x.toml"
    file.write_text("[cache]\nsise = 1\n")
    assert main(["config", "check", str(file)]) == 1
    error = capsys.readouterr().err
    assert error == f"fsdriver: {file}: line 2: cache.sise: unknown key; did you mean 'size'?\n"
    assert main(["--debug", "config", "check", str(file)]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_config_check_shows_the_tree_without_its_secrets(tmp_path, capsys, monkeypatch):
    file = tmp_path / "x.toml"
    file.write_text(
        '[backend.hot]\nurl = "s3://b"\naccess_key_id = { env = "MY_KEY" }\nsecret_access_key = "hunter2"\n'
        '[[route]]\npath = "/data"\ntiers = ["hot"]\n'
    )
    assert main(["config", "check", str(file)]) == 1
    captured = capsys.readouterr()
    assert "MY_KEY" in captured.err
    monkeypatch.setenv("MY_KEY", "id")
    assert main(["config", "check", str(file)]) == 0
    captured = capsys.readouterr()
    assert "/data" in captured.out
    assert "s3://b" in captured.out
    assert "hunter2" not in captured.out + captured.err


def test_no_configuration_is_fine(capsys):
    assert main(["config", "check"]) == 0
    assert "a URL alone" in capsys.readouterr().out


def test_a_secret_on_the_command_line_is_refused(tmp_path, capsys):
    assert main(["mount", "s3://b", str(tmp_path), "-o", "secret_access_key=hunter2"]) == 1
    error = capsys.readouterr().err
    assert "secret_access_key.env=NAME" in error
    assert "hunter2" not in error


def test_options_of_mount():
    assert parse_options(["a=1,b", r"c=x\,y", "", "d=e=f"]) == {"a": "1", "b": "", "c": "x,y", "d": "e=f"}


def test_commands_outside_a_mount_say_so(tmp_path, capsys):
    for command in ("sync", "refresh", "status"):
        assert main([command, str(tmp_path)]) == 1
        assert "not inside an fsdriver mount" in capsys.readouterr().err


def test_the_innermost_mount_above_a_path(tmp_path, monkeypatch):
    table = [
        Mounted("/", "ext4", "/dev/a", "8:1"),
        Mounted(f"{tmp_path}/a b", "fuse.fsdriver", "s3://b/p", "0:50"),
        Mounted(f"{tmp_path}/a b/c", "fuse.fsdriver", "file:///x", "0:51"),
        Mounted(f"{tmp_path}/other", "fuse.sshfs", "host:", "0:52"),
    ]
    monkeypatch.setattr("fsdriver.cli.mounts.mounts", lambda: iter(table))
    assert mounted() == table[1:3]
    assert locate(tmp_path / "a b") == (tmp_path / "a b", "/")
    assert locate(tmp_path / "a b" / ".." / "a b" / "x" / "y") == (tmp_path / "a b", "/x/y")
    assert locate(tmp_path / "a b" / "c" / ".hidden") == (tmp_path / "a b" / "c", "/.hidden")
    for outside in ("a", "other/x", "a bc"):
        with pytest.raises(NotFound):
            locate(tmp_path / outside)


def test_doctor_finds_what_is_wrong_and_how_to_mend_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FSDRIVER_STATE_DIR", "/proc/nowhere")
    assert main(["doctor", "--json"]) == 1
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["python"]["level"] == "ok"
    assert findings["cache directory"]["level"] == "ok"
    assert findings["state directory"]["level"] == "fail"
    assert "FSDRIVER_STATE_DIR" in findings["state directory"]["remedy"]
