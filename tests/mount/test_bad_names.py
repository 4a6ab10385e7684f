"""Names and keys that the other side cannot hold: told on the mount, hidden and counted on the bucket, and never lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import TreeMaker, fails_with

KEYS = {
    "a": "a%file",
    "a/b": "a/b",
    "plain": "plain",
    "100%": "100%",
    "%0A": "\n",
    "escaped%5Cbackslash": "escaped\\backslash",
    "na\u00efve": "na\u00efve",
    "d/e%file": "d/e%file",
    "line\nbreak": None,
    "odd/control\x01": None,
    "odd/seen": "odd/seen",
    "odd//double": None,
    "odd/./dot": None,
    "odd/../up": None,
    "marker/": "marker",
    "both/": "both",
    "both/f": "both/f",
}
"""Keys that another program wrote, and the name each is shown under; None: it has none."""


def test_keys_that_are_no_names(trees: TreeMaker, s3_server):
    client, bucket = s3_server.client(), s3_server.create_bucket()
    for key in KEYS:
        with contextlib.suppress(client.exceptions.ClientError):
            client.put_object(Bucket=bucket, Key=f"p/{key}", Body=b"" if key.endswith("/") else key.encode())
    stored = [item["Key"].removeprefix("p/") for item in _all(client, bucket)]
    assert {"a", "a/b", "line\nbreak", "%0A"} <= set(stored)
    tree = trees(f"s3://{bucket}/p", s3_server.environment()).mount()
    shown = {path.relative_to(tree.root).as_posix(): path for path in tree.root.rglob("*") if not path.is_dir()}
    # The server folds some of these keys into others; then those are what must be shown.
    names = {key: KEYS.get(key, key) for key in stored if not key.endswith("/")}
    expected = {name: key for key, name in names.items() if name is not None}
    assert sorted(shown) == sorted(expected)
    for name, key in expected.items():
        assert shown[name].read_bytes() == client.get_object(Bucket=bucket, Key=f"p/{key}")["Body"].read()
    for folder in ("a", "odd", "both", "d"):
        assert (tree.root / folder).is_dir()
    if "marker/" in stored:
        assert os.listdir(tree.root / "marker") == []
    raw = tree.command("ls", "--raw", tree.url).stdout
    assert "line\\nbreak" in raw
    assert tree.status()["routes"][0]["hidden_names"] >= 1

    (tree.root / "a%file").write_bytes(b"changed")
    (tree.root / "plain").write_bytes(b"changed")
    tree.command("sync", str(tree.root))
    assert client.get_object(Bucket=bucket, Key="p/a")["Body"].read() == b"changed"
    (tree.root / "a%file").unlink()
    tree.umount()
    keys = {item["Key"].removeprefix("p/") for item in _all(client, bucket)}
    assert {key for key in keys if not key.startswith(".fsdriver/")} == set(stored) - {"a"}


def test_files_of_a_directory_that_are_no_names(trees: TreeMaker):
    tree = trees()
    bucket = Path(tree.url.removeprefix("file://"))
    for name in ("line\nbreak", "\x01", "back\\slash", "plain", "%0A", "100%"):
        (bucket / name).write_text(name)
    (bucket / "outside").symlink_to("/etc/hostname")
    os.mkfifo(bucket / "pipe")
    tree.mount()
    assert sorted(os.listdir(tree.root)) == ["\n", "100%", "pipe", "plain"]
    assert stat.S_ISFIFO((tree.root / "pipe").lstat().st_mode)
    assert (tree.root / "\n").read_text() == "%0A"
    (tree.root / "new\nline").write_text("new")
    tree.umount()
    assert (bucket / "new%0Aline").read_text() == "new"
    assert (bucket / "line\nbreak").read_text() == "line\nbreak"
    assert stat.S_ISFIFO((bucket / "pipe").lstat().st_mode)


def test_names_that_are_too_long(trees: TreeMaker, s3_server):
    tree = trees(f"s3://{s3_server.create_bucket()}", s3_server.environment()).mount()
    with fails_with(errno.ENAMETOOLONG):
        (tree.root / ("x" * 256)).write_bytes(b"")
    folder = tree.root / ("d" * 200) / ("e" * 200) / ("f" * 200) / ("g" * 200)
    folder.mkdir(parents=True)
    (folder / "fits").write_bytes(b"1")
    (folder / ("\x01" * 80)).write_bytes(b"2")
    tree.remount_elsewhere()
    assert (folder / "fits").read_bytes() == b"1"
    assert (folder / ("\x01" * 80)).read_bytes() == b"2"
    assert sorted(os.listdir(folder)) == ["\x01" * 80, "fits"]


def test_paths_longer_than_a_key(own_tree, monkeypatch):
    """What has no room in a key of 1,024 bytes is kept all the same, up to the longest path of a program."""
    tree = own_tree.mount()
    monkeypatch.chdir(tree.root)
    folder = Path("/".join(str(number) * 200 for number in range(1, 10)))
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"deep")
    (folder / ("n" * 255)).write_bytes(b"long name")
    os.link(folder / "file", folder / "link")
    os.symlink("file", folder / "symlink")
    folder.parent.rename(folder.parent.with_name("renamed"))
    folder = folder.parent.with_name("renamed") / folder.name
    monkeypatch.chdir("/")
    tree.remount_elsewhere()
    monkeypatch.chdir(tree.root)
    assert sorted(os.listdir(folder)) == sorted(["file", "link", "symlink", "n" * 255])
    assert (folder / "symlink").read_bytes() == b"deep"
    assert (folder / "link").stat().st_nlink == 2
    assert (folder / ("n" * 255)).read_bytes() == b"long name"
    with fails_with(errno.ENAMETOOLONG):
        (folder / "/".join(["x" * 200] * 20)).mkdir()
    shutil.rmtree("1" * 200)
    monkeypatch.chdir("/")
    tree.remount_elsewhere()
    assert os.listdir(tree.root) == []


def test_names_that_a_directory_cannot_hold_once_they_are_escaped(trees: TreeMaker):
    tree = trees().mount()
    with fails_with(errno.ENAMETOOLONG):
        (tree.root / ("\x01" * 100)).write_bytes(b"")
    assert os.listdir(tree.root) == []


def test_the_reserved_name(trees: TreeMaker):
    tree = trees().mount()
    (tree.root / "d").mkdir()
    for change in (
        (tree.root / ".fsdriver" / "meta").mkdir,
        lambda: (tree.root / "d").rename(tree.root / ".fsdriver"),
        (tree.root / ".fsdriver").rmdir,
    ):
        with pytest.raises(OSError, match="Errno"):
            change()
    (tree.root / "d" / ".fsdriver").mkdir()
    assert os.listdir(tree.root) == ["d"]


def test_without_attributes_only_objects_are_written(trees: TreeMaker, s3_server, tmp_path: Path):
    """``posix = "off"``: shared or audited buckets get nothing but the objects, and those no metadata."""
    client, bucket = s3_server.client(), s3_server.create_bucket()
    client.put_object(Bucket=bucket, Key="foreign", Body=b"foreign")
    tree = trees(f"s3://{bucket}", s3_server.environment()).mount("posix=off")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for number in range(5):
        (source / "sub" / f"f{number}").write_bytes(bytes([number]) * 10_000)
    subprocess.run(["cp", "-r", source, tree.root / "copy"], check=True)
    (tree.root / "copy" / "sub" / "f0").rename(tree.root / "moved")
    with (tree.root / "foreign").open("ab") as file:
        file.write(b" and ours")
    (tree.root / "copy" / "sub" / "f1").unlink()
    for change in (
        lambda: (tree.root / "copy" / "sub" / "f2").chmod(0o600),
        lambda: (tree.root / "link").symlink_to("foreign"),
        lambda: os.link(tree.root / "foreign", tree.root / "hard"),
        lambda: os.setxattr(tree.root / "foreign", "user.x", b"1"),
    ):
        with fails_with(errno.EOPNOTSUPP, errno.EPERM):
            change()
    tree.umount()
    objects = [item["Key"] for item in _all(client, bucket)]
    kept = ["copy/sub/f2", "copy/sub/f3", "copy/sub/f4", "foreign", "moved"]
    assert [key for key in objects if not key.endswith("/")] == kept
    for key in kept:
        assert client.head_object(Bucket=bucket, Key=key)["Metadata"] == {}
    assert client.get_object(Bucket=bucket, Key="foreign")["Body"].read() == b"foreign and ours"
    assert client.get_object(Bucket=bucket, Key="moved")["Body"].read() == bytes(10_000)


def _all(client, bucket: str) -> list[dict]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [item for page in pages for item in page.get("Contents", [])]
