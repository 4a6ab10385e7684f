"""Through Python: each error is of the class its cause has, and one line that names the thing and the way out."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from fsdriver.errors import ConfigError, ContainerMissing, InvalidName, NameTooLong, NotFound, ReadOnly
from fsdriver.filesystem import TierFileSystem

OPERATIONS = {
    "ls": lambda fs: fs.ls("data"),
    "find": lambda fs: fs.find("data"),
    "info": lambda fs: fs.info("data/f"),
    "cat": lambda fs: fs.cat_file("data/f"),
    "open": lambda fs: fs.open("data/f").read(),
    "write": lambda fs: fs.pipe_file("data/new", b"x"),
    "rm": lambda fs: fs.rm_file("data/f"),
    "cp": lambda fs: fs.cp_file("data/f", "data/g"),
}


def said(operation: str, fs: TierFileSystem, *kinds: type[BaseException]) -> str:
    """The one line with which an operation fails; its class survives pickling."""
    with pytest.raises(kinds or OSError) as raised:
        OPERATIONS[operation](fs)
    error = raised.value
    assert isinstance(error, OSError)
    assert error.errno is not None
    assert "\n" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return str(error)


def with_backend(config: dict[str, Any], **changes: Any) -> TierFileSystem:
    backend = {**config["backend"]["hot"], **changes}
    return TierFileSystem(config={**config, "backend": {"hot": backend}})


# -- stores that cannot be reached -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_wrong_credentials(s3_config, s3_server, operation: str, wrong: str):
    text = said(operation, with_backend(s3_config, **{wrong: "wrong"}), PermissionError)
    assert "access_key_id" in text
    assert s3_server.secret_key not in text


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_bucket_is_an_error_and_no_empty_tree(s3_config, operation: str):
    fs = with_backend(s3_config, url="s3://no-such-bucket-here/prefix")
    text = said(operation, fs, ContainerMissing)
    assert "no-such-bucket-here" in text
    with contextlib.suppress(OSError):
        assert not fs.exists("data/f")


@pytest.mark.parametrize("operation", ["ls", "cat", "write"])
def test_a_missing_directory_is_an_error_and_no_empty_tree(local_config, tmp_path: Path, operation: str):
    local_config["backend"]["disk"]["url"] = f"file://{tmp_path}/nowhere"
    text = said(operation, TierFileSystem(config=local_config), ContainerMissing)
    assert f"{tmp_path}/nowhere" in text
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("operation", ["ls", "cat", "write"])
@pytest.mark.timeout(25)
@pytest.mark.feature("S1-13")
def test_an_endpoint_that_never_answers(s3_config, silent: str, operation: str):
    """The default deadline is longer than this test may take: the configured one counts."""
    text = said(operation, with_backend(s3_config, endpoint=silent, timeout="2s"))
    assert silent.removeprefix("http://") in text


@pytest.mark.parametrize("operation", ["ls", "cat", "write"])
@pytest.mark.timeout(25)
def test_an_endpoint_where_nobody_listens(s3_config, closed: str, operation: str):
    text = said(operation, with_backend(s3_config, endpoint=closed, timeout="2s"))
    assert closed.removeprefix("http://") in text


@pytest.mark.parametrize("operation", ["write", "rm", "cp"])
def test_credentials_that_may_only_read(s3_config, s3_server, s3_bucket, operation: str):
    s3_server.client().put_object(Bucket=s3_bucket, Key="prefix/f", Body=b"x")
    reader = {"access_key_id": s3_server.reader_access_key, "secret_access_key": s3_server.reader_secret_key}
    fs = with_backend(s3_config, **reader)
    assert fs.cat_file("data/f") == b"x"
    assert said(operation, fs, PermissionError, ReadOnly)
    assert fs.cat_file("data/f") == b"x"
    objects = s3_server.client().list_objects_v2(Bucket=s3_bucket)["Contents"]
    assert [item["Key"] for item in objects] == ["prefix/f"]


# -- configuration and places ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s33://bucket/x", ["s33", "s3"]),
        ("s3://", ["bucket"]),
        ("nothing", ["nothing", "scheme"]),
    ],
)
def test_urls_that_name_nothing(s3_config, url: str, words: list[str]):
    with pytest.raises(ConfigError) as raised:
        with_backend(s3_config, url=url).ls("data")
    assert [word for word in words if word not in str(raised.value)] == []
    assert isinstance(raised.value, ValueError)


def test_a_route_that_does_not_exist(local_config):
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        TierFileSystem(config=local_config).cat_file("elsewhere/f")


@pytest.mark.parametrize("place", ["FSDRIVER_CACHE_DIR", "FSDRIVER_STATE_DIR"])
def test_a_place_that_cannot_be_used(local_config, tmp_path: Path, monkeypatch, place: str):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(place, str(tmp_path / "file"))
    with pytest.raises(ConfigError) as raised:
        TierFileSystem(config=local_config).ls("data")
    assert str(tmp_path / "file") in str(raised.value)
    assert place in str(raised.value)


# -- names and keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["data/../f", "data/d/../../f", "data/./f", "data//f", "data/d/..", "data/\0"])
def test_names_that_lead_elsewhere(local_config, tier_places: Path, path: str):
    """No path leaves the route: it is refused, or means the name it would mean anywhere."""
    outside = tier_places / "f"
    outside.write_text("outside")
    fs = TierFileSystem(config=local_config)
    with pytest.raises((InvalidName, NotFound)):
        fs.cat_file(path)
    with pytest.raises((InvalidName, NotFound)):
        fs.pipe_file(path, b"changed")
    assert outside.read_text() == "outside"
    assert sorted(os.listdir(tier_places / "bucket")) == []


def test_absolute_paths_are_paths_of_the_tree(local_config, tier_places: Path):
    fs = TierFileSystem(config=local_config)
    fs.pipe_file("/data/etc/passwd", b"ours")
    assert (tier_places / "bucket" / "etc" / "passwd").read_bytes() == b"ours"
    assert fs.cat_file("tier://data/etc/passwd") == b"ours"
    with pytest.raises(FileNotFoundError):
        fs.cat_file("/etc/passwd")


def test_links_that_lead_outside_are_not_followed(local_config, tier_places: Path):
    (tier_places / "secret").write_text("secret")
    (tier_places / "bucket" / "link").symlink_to(tier_places / "secret")
    (tier_places / "bucket" / "folder").symlink_to(tier_places)
    fs = TierFileSystem(config=local_config)
    for path in ("data/link", "data/folder/secret"):
        with pytest.raises(OSError, match=r"link|secret|folder"):
            fs.cat_file(path)
    with pytest.raises(OSError, match="folder"):
        fs.pipe_file("data/folder/new", b"x")
    assert not (tier_places / "new").exists()


def test_control_characters_are_escaped_in_keys(tier_s3: TierFileSystem, s3_server, s3_bucket):
    names = ["line\nbreak", "tab\there", "back\\slash", "%0A", "\x7f"]
    for name in names:
        tier_s3.pipe_file(f"data/d/{name}", name.encode())
    assert sorted(tier_s3.ls("data/d", detail=False)) == sorted(f"data/d/{name}" for name in names)
    for name in names:
        assert tier_s3.cat_file(f"data/d/{name}") == name.encode()
    listed = s3_server.client().list_objects_v2(Bucket=s3_bucket, Prefix="prefix/d/")["Contents"]
    expected = ["line%0Abreak", "tab%09here", "back%5Cslash", "%250A", "%7F"]
    assert sorted(item["Key"] for item in listed) == sorted(f"prefix/d/{key}" for key in expected)


def test_odd_foreign_keys_break_no_listing(tier_s3: TierFileSystem, s3_server, s3_bucket):
    client = s3_server.client()
    for key in ("a", "a/b", "plain", "new\nline", "d/\x01", "d/seen", "e/"):
        client.put_object(Bucket=s3_bucket, Key=f"prefix/{key}", Body=key.encode() if key != "e/" else b"")
    assert sorted(tier_s3.ls("data", detail=False)) == ["data/a", "data/a%file", "data/d", "data/e", "data/plain"]
    assert tier_s3.ls("data/d", detail=False) == ["data/d/seen"]
    assert tier_s3.ls("data/e", detail=False) == []
    assert tier_s3.info("data/a")["type"] == "directory"
    assert tier_s3.cat_file("data/a%file") == b"a"
    assert tier_s3.cat_file("data/a/b") == b"a/b"
    found = tier_s3.find("data")
    assert {"data/a/b", "data/plain", "data/d/seen"} <= set(found)
    assert not [path for path in found if "\n" in path or "\x01" in path]


def test_names_over_the_limits(tier_s3: TierFileSystem):
    for path in ("data/" + "x" * 256, "data/" + "/".join(["\n" * 200] * 2)):
        with pytest.raises(NameTooLong) as raised:
            tier_s3.pipe_file(path, b"")
        assert raised.value.errno == errno.ENAMETOOLONG


def test_paths_longer_than_a_key(tier_s3: TierFileSystem, s3_server, s3_bucket: str):
    """Also without anybody making their directories."""
    path = "data/" + "/".join(["d" * 200] * 9)
    tier_s3.pipe_file(f"{path}/file", b"deep")
    tier_s3.pipe_file("data/other", b"")
    TierFileSystem.clear_instance_cache()
    assert tier_s3.cat_file(f"{path}/file") == b"deep"
    assert tier_s3.find("data") == [f"{path}/file", "data/other"]
    assert [found for found, _, _ in tier_s3.walk("data")][-1] == path
    keys = [item["Key"] for item in s3_server.client().list_objects_v2(Bucket=s3_bucket)["Contents"]]
    assert max(len(key) for key in keys) <= 1024
    tier_s3.rm("data/" + "d" * 200, recursive=True)
    assert tier_s3.find("data") == ["data/other"]


def test_an_option_that_nobody_knows(s3_server, s3_bucket: str, tier_places: Path, caplog: pytest.LogCaptureFixture):
    s3_server.client().put_object(Bucket=s3_bucket, Key="k", Body=b"content")
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    options = {**keys, "endpoint_url": s3_server.endpoint, "regoin": "us-east-1"}
    with fsspec.open(f"tier::s3://{s3_bucket}/k", s3=options) as file:
        assert file.read() == b"content"
    assert "the option 'regoin' has no effect; did you mean 'region'?" in caplog.text
