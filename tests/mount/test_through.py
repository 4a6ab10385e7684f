"""Write-through: what was acknowledged is on the store, attributes included, though attribute objects follow later."""

from __future__ import annotations

import json
import mmap
import os

from tests.mount.conftest import kill_daemon

PREFIX = "p"
FILES = 40
KEPT = ("st_mode", "st_uid", "st_gid", "st_size", "st_ino", "st_mtime_ns", "st_atime_ns", "st_ctime_ns")


def _tree(trees, server):
    bucket = server.create_bucket()
    return trees(f"s3://{bucket}/{PREFIX}", server.environment(), "write=through").mount(), bucket


def _write(directory):
    """Files one by one, with modes and times of their own; what lstat says of each."""
    for number in range(FILES):
        with open(directory / f"f{number:03d}", "wb") as file:
            file.write(b"%d" % number)
            file.flush()
            os.fchmod(file.fileno(), 0o600 | number & 0o077)
            os.utime(file.fileno(), ns=(number * 10**9 + 1, number * 10**9 + 2))
    return _statuses(directory)


def _statuses(directory):
    return {
        entry.name: [getattr(entry.stat(follow_symlinks=False), name) for name in KEPT]
        for entry in os.scandir(directory)
    }


def _attributes(server, bucket):
    body = server.client().get_object(Bucket=bucket, Key=f"{PREFIX}/.fsdriver/meta/work")["Body"].read()
    return json.loads(body)


def test_acknowledged_files_are_whole_when_the_host_is_lost(trees, s3_server):
    tree, _ = _tree(trees, s3_server)
    work = tree.root / "work"
    work.mkdir()
    seen = _write(work)
    kill_daemon(tree)
    tree.forget_everything()
    tree.mount()
    assert _statuses(work) == seen
    assert [(work / name).read_bytes() for name in sorted(seen)] == [b"%d" % number for number in range(FILES)]


def test_a_file_costs_one_request_and_its_record_follows(trees, s3_server):
    tree, bucket = _tree(trees, s3_server)
    work = tree.root / "work"
    work.mkdir()
    (work / "first").touch()
    before = tree.status()["routes"][0]["requests"]["put"]
    _write(work)
    puts = tree.status()["routes"][0]["requests"]["put"] - before
    # Now and then the attribute object is sent in between, where the machine is slow.
    assert FILES <= puts <= FILES + FILES // 4
    tree.command("sync", str(tree.root))
    attributes = _attributes(s3_server, bucket)
    assert len(attributes["entries"]) == FILES + 1
    assert "writers" not in attributes


def test_a_change_of_attributes_alone_is_on_the_store_when_it_returns(trees, s3_server):
    tree, bucket = _tree(trees, s3_server)
    work = tree.root / "work"
    work.mkdir()
    (work / "f").write_bytes(b"x")
    os.chmod(work / "f", 0o640)
    os.setxattr(work / "f", "user.note", b"kept")
    record = _attributes(s3_server, bucket)["entries"]["f"]
    assert record["mode"] == 0o640
    assert "user.note" in record["xattrs"]
    (work / "f").unlink()
    assert "f" not in _attributes(s3_server, bucket)["entries"]


def test_publishing_by_link_and_unlink_sends_attributes_together(trees, s3_server):
    tree, _ = _tree(trees, s3_server)
    work = tree.root / "work"
    work.mkdir()
    (work / "first").touch()
    before = dict(tree.status()["routes"][0]["requests"])
    for number in range(FILES):
        temporary = work / f"tmp{number:03d}"
        temporary.write_bytes(b"%d" % number)
        os.link(temporary, work / f"f{number:03d}")
        temporary.unlink()
    spent = {name: count - before.get(name, 0) for name, count in tree.status()["routes"][0]["requests"].items()}
    assert (spent["copy"], spent["delete"]) == (FILES, FILES)
    assert FILES <= spent["put"] <= FILES + FILES // 4
    assert spent.get("head", 0) == 0
    (work / "first").unlink()
    seen = _statuses(work)
    kill_daemon(tree)
    tree.forget_everything()
    tree.mount()
    kept = [KEPT.index(name) for name in KEPT if name != "st_ctime_ns"]
    assert {name: [status[at] for at in kept] for name, status in _statuses(work).items()} == {
        name: [status[at] for at in kept] for name, status in seen.items()
    }
    assert [(work / name).read_bytes() for name in sorted(seen)] == [b"%d" % number for number in range(FILES)]


def test_a_renamed_file_is_whole_when_the_host_is_lost(trees, s3_server):
    tree, _ = _tree(trees, s3_server)
    work = tree.root / "work"
    work.mkdir()
    (work / "part").write_bytes(b"published")
    os.chmod(work / "part", 0o640)
    os.rename(work / "part", work / "whole")
    (work / "other").write_bytes(b"published")
    os.rename(work / "other", work / "second")
    seen = _statuses(work)
    kill_daemon(tree)
    tree.forget_everything()
    tree.mount()
    assert sorted(seen) == ["second", "whole"]
    assert {name: status[:6] for name, status in _statuses(work).items()} == {
        name: status[:6] for name, status in seen.items()
    }


def test_stores_through_a_mapping_that_was_closed_already_are_sent(trees, s3_server):
    tree, bucket = _tree(trees, s3_server)
    work = tree.root / "work"
    work.mkdir()
    (work / "first").touch()

    def stored():
        return s3_server.client().get_object(Bucket=bucket, Key=f"{PREFIX}/work/f")["Body"].read()[:1]

    with open(work / "f", "w+b") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096) as mapped:
            for letter in (b"a", b"b", b"c"):
                # From the second time on no time of the file moves: its page is writable and dirty already.
                mapped[:1] = letter
                os.close(os.dup(file.fileno()))
                assert stored() == letter
            mapped[:1] = b"d"
    tree.command("sync", str(tree.root))
    assert stored() == b"d"
