"""What is wrong is said in one line that names the thing and the way out; nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MountedTree, TreeMaker, fails_with, make_tree, small_disk

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
