"""What is wrong is said in one line that names the thing and the way out; nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, fails_with, make_tree

MIB = 1 << 20


def refuse(tree: MountedTree, url: str, *options: str) -> str:
    """What mounting says when it fails: one line, status 1, and nothing is mounted."""
    given = ["-o", ",".join(options)] if options else []
    done = tree.command("mount", url, str(tree.root), *given, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("fsdriver: ")
    assert "Traceback" not in done.stderr
    assert not os.path.ismount(tree.root)
    assert tree.daemon_pids() == []
    return done.stderr


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def small_disk(place: Path, *options: str) -> Iterator[Path]:
    """A file system of its own at ``place``."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(("mode=0700", *options)), "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


# -- stores that cannot be reached -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s33://bucket/prefix", ["s33", "did you mean"]),
        ("s3://", ["bucket"]),
        ("bucket/prefix", ["bucket/prefix", "scheme", "s3://bucket/prefix"]),
        ("s3://user:secret@bucket/x", ["user name or password"]),
        ("file:///no/such/directory", ["/no/such/directory", "make it"]),
        ("file:///etc/hostname", ["/etc/hostname", "director"]),
    ],
)
def test_urls_that_name_nothing(trees: TreeMaker, url: str, words: list[str]):
    said = refuse(trees(), url)
    assert [word for word in words if word not in said] == [], said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["write=bak"], ["write", "back", "through"]),
        (["ttl=tomorrow"], ["ttl"]),
        (["timeout=-1"], ["timeout"]),
        (["writ=back"], ["writ", "write"]),
        (["secret_access_key=hunter2"], ["secret_access_key", "secret_access_key.env"]),
    ],
)
def test_options_that_make_no_sense(trees: TreeMaker, options: list[str], words: list[str]):
    tree = trees()
    said = refuse(tree, tree.url, *options)
    assert [word for word in words if word not in said] == [], said
    assert "hunter2" not in said


def test_a_bucket_that_does_not_exist(trees: TreeMaker, s3_server):
    tree = trees("s3://no-such-bucket-here/p", s3_server.environment())
    assert "no-such-bucket-here" in refuse(tree, tree.url)


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_that_are_wrong(trees: TreeMaker, s3_server, variable: str):
    url = f"s3://{s3_server.create_bucket()}/p"
    tree = trees(url, {**s3_server.environment(), variable: "wrong"})
    said = refuse(tree, tree.url)
    assert "access_key_id" in said
    assert s3_server.secret_key not in said


def test_an_endpoint_that_never_answers(trees: TreeMaker, s3_server, silent_endpoint: str):
    """The default is a deadline of 30 s with all retries; the one asked for counts."""
    tree = trees("s3://bucket/p", {**s3_server.environment(), "AWS_ENDPOINT_URL": silent_endpoint})
    said = refuse(tree, tree.url, "timeout=2s")
    assert silent_endpoint.removeprefix("http://") in said
    assert "timeout" in said


def test_a_bucket_that_goes_away_is_an_error_and_no_empty_tree(trees: TreeMaker, s3_server):
    client, bucket = s3_server.client(), s3_server.create_bucket()
    client.put_object(Bucket=bucket, Key="d/f", Body=b"x")
    tree = trees(f"s3://{bucket}", s3_server.environment()).mount()
    assert os.listdir(tree.root) == ["d"]
    client.delete_object(Bucket=bucket, Key="d/f")
    client.delete_bucket(Bucket=bucket)
    tree.command("refresh", str(tree.root))
    with fails_with(errno.EIO):
        os.listdir(tree.root)
    with fails_with(errno.EIO):
        os.stat(tree.root / "d" / "f")
    with fails_with(errno.EIO):
        os.stat(tree.root / "never seen")


def test_credentials_that_may_only_read(trees: TreeMaker, s3_server):
    bucket = s3_server.create_bucket()
    s3_server.client().put_object(Bucket=bucket, Key="f", Body=b"x")
    reader = {
        "AWS_ACCESS_KEY_ID": s3_server.reader_access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.reader_secret_key,
    }
    tree = trees(f"s3://{bucket}", {**s3_server.environment(), **reader}).mount()
    assert (tree.root / "f").read_bytes() == b"x"
    assert os.statvfs(tree.root).f_flag & os.ST_RDONLY
    with fails_with(errno.EROFS):
        (tree.root / "g").write_bytes(b"y")
    with fails_with(errno.EROFS):
        (tree.root / "f").unlink()
    assert "read-only" in tree.log()
    assert [item["Key"] for item in s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]] == ["f"]


# -- places on this host -----------------------------------------------------------------------------------------------


def test_a_cache_directory_that_is_a_file(trees: TreeMaker):
    tree = trees()
    (tree.places / "cache").write_text("")
    said = refuse(tree, tree.url)
    assert str(tree.places / "cache") in said
    assert "FSDRIVER_CACHE_DIR" in said


def test_a_cache_directory_that_cannot_be_written(trees: TreeMaker):
    tree = trees()
    with small_disk(tree.places / "cache", "ro"):
        said = refuse(tree, tree.url)
    assert str(tree.places / "cache") in said
    assert "FSDRIVER_CACHE_DIR" in said


def test_a_cache_that_is_removed_while_it_is_used(trees: TreeMaker, s3_server):
    """What the store has is there, new files can be made; what was lost is named, and can be written again."""
    tree = trees(f"s3://{s3_server.create_bucket()}", s3_server.environment()).mount()
    (tree.root / "stored").write_bytes(b"stored")
    tree.command("sync", str(tree.root))
    with (tree.root / "lost").open("wb") as file:
        file.write(b"lost")
        shutil.rmtree(tree.places / "cache")
    assert (tree.root / "stored").read_bytes() == b"stored"
    (tree.root / "new").write_bytes(b"new")
    with (tree.root / "stored").open("ab") as file:
        file.write(b" and more")
    done = tree.command("sync", str(tree.root), check=False)
    assert done.returncode == 1
    assert "lost: the bytes written here are gone" in done.stderr
    assert "write the file again" in done.stderr
    (tree.root / "lost").write_bytes(b"written again")
    tree.remount_elsewhere()
    kept = {name: (tree.root / name).read_bytes() for name in os.listdir(tree.root)}
    assert kept == {"lost": b"written again", "new": b"new", "stored": b"stored and more"}


def test_a_mountpoint_below_a_file(trees: TreeMaker):
    tree = trees()
    (tree.root / "file").write_text("")
    done = tree.command("mount", tree.url, str(tree.root / "file" / "mnt"), check=False)
    assert done.returncode == 1
    assert "not a directory" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_full_cache_disk(trees: TreeMaker, tmp_path: Path, kind: str, request):
    """Writes that do not fit fail with ENOSPC, files that are larger than the disk are read, what was closed is kept."""
    large = os.urandom(40 * MIB)
    tree = trees()
    if kind == "s3":
        server = request.getfixturevalue("s3_server")
        bucket = server.create_bucket()
        server.client().put_object(Bucket=bucket, Key="large", Body=large)
        tree = trees(f"s3://{bucket}", server.environment())
    else:
        Path(tree.url.removeprefix("file://"), "large").write_bytes(large)
    with small_disk(tree.places / "cache", "size=24m"):
        tree.mount("cache.min_free=8MiB")
        try:
            (tree.root / "before").write_bytes(b"written before")
            with fails_with(errno.ENOSPC), (tree.root / "too much").open("wb", buffering=0) as file:
                for _ in range(40):
                    file.write(os.urandom(MIB))
            with contextlib.suppress(FileNotFoundError):
                (tree.root / "too much").unlink()
            with (tree.root / "large").open("rb") as file:
                assert file.read() == large
                file.seek(30 * MIB)
                assert file.read(MIB) == large[30 * MIB : 31 * MIB]
            (tree.root / "after").write_bytes(b"written after" * 1000)
            assert (tree.root / "before").read_bytes() == b"written before"
            tree.umount()
        finally:
            tree.end()
    tree.forget_everything()
    tree.mount()
    assert (tree.root / "before").read_bytes() == b"written before"
    assert (tree.root / "after").read_bytes() == b"written after" * 1000
    assert (tree.root / "large").read_bytes() == large


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("write", ["back", "through"])
def test_a_full_state_disk(trees: TreeMaker, kind: str, write: str, request):
    """Nothing can be journaled: what changes something fails with ENOSPC and has changed nothing; reading goes on."""
    tree = make_tree(kind, trees, request)
    with small_disk(tree.places / "state", "size=8m"):
        tree.mount(f"write={write}")
        try:
            old, seen = tree.root / "old", tree.root / "d" / "seen"
            seen.parent.mkdir()
            seen.write_bytes(b"seen")
            old.write_bytes(b"old")
            tree.command("sync", str(tree.root))
            filler = tree.places / "state" / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            for change in (
                lambda: (tree.root / "new").write_bytes(b"new"),
                lambda: old.write_bytes(b"rewritten"),
                lambda: old.rename(tree.root / "renamed"),
                lambda: seen.parent.rename(tree.root / "moved"),
                lambda: old.chmod(0o600),
                (tree.root / "made").mkdir,
                seen.unlink,
            ):
                with fails_with(errno.ENOSPC):
                    change()
            assert sorted(os.listdir(tree.root)) == ["d", "old"]
            assert os.listdir(seen.parent) == ["seen"]
            assert old.read_bytes() == b"old"
            assert old.stat().st_mode & 0o777 == 0o644
            assert seen.read_bytes() == b"seen"
            filler.unlink()
            (tree.root / "after").write_bytes(b"after")
            old.rename(tree.root / "renamed")
            tree.umount()
        finally:
            tree.end()
    tree.forget_everything()
    tree.mount()
    assert sorted(os.listdir(tree.root)) == ["after", "d", "renamed"]
    assert (tree.root / "renamed").read_bytes() == b"old"
    assert (tree.root / "after").read_bytes() == b"after"


# -- names and keys ----------------------------------------------------------------------------------------------------

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


def test_paths_longer_than_a_key(own_tree):
    """What has no room in a key of 1,024 bytes is kept all the same, up to the longest path of a program."""
    tree = own_tree.mount()
    os.chdir(tree.root)
    try:
        folder = Path("/".join(str(number) * 200 for number in range(1, 10)))
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"deep")
        (folder / ("n" * 255)).write_bytes(b"long name")
        os.link(folder / "file", folder / "link")
        os.symlink("file", folder / "symlink")
        folder.parent.rename(folder.parent.with_name("renamed"))
        folder = folder.parent.with_name("renamed") / folder.name
        os.chdir("/")
        tree.remount_elsewhere()
        os.chdir(tree.root)
        assert sorted(os.listdir(folder)) == sorted(["file", "link", "symlink", "n" * 255])
        assert (folder / "symlink").read_bytes() == b"deep"
        assert (folder / "link").stat().st_nlink == 2
        assert (folder / ("n" * 255)).read_bytes() == b"long name"
        with fails_with(errno.ENAMETOOLONG):
            (folder / "/".join(["x" * 200] * 20)).mkdir()
        shutil.rmtree("1" * 200)
        os.chdir("/")
        tree.remount_elsewhere()
        assert os.listdir(tree.root) == []
    finally:
        os.chdir("/")


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
