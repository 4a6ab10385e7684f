"""A mount of a bucket whose objects are compressed and encrypted."""

from __future__ import annotations

import os

from tests.mount.conftest import kill_daemon

MARK = b"what nobody is to find on the store"
DATA = MARK * 50_000


def test_a_coded_bucket(trees, s3_server):
    bucket = s3_server.create_bucket()
    tree = trees("--config", s3_server.environment())
    config = tree.places / "config.toml"
    config.write_text(
        f'[backend.b]\nurl = "s3://{bucket}/p"\ncompression = "zstd"\nencryption_key = {{ env = "TEST_KEY" }}\n'
        '[[route]]\npath = "/"\ntiers = ["b"]\n'
    )
    tree.environment["TEST_KEY"] = "ab" * 32

    def mount() -> None:
        tree.command("mount", "--config", str(config), str(tree.root))

    mount()
    large = tree.root / "large"
    large.write_bytes(DATA)
    (tree.root / "small").write_bytes(MARK)
    os.setxattr(tree.root / "small", "user.note", b"a secret note")
    with open(large, "r+b") as file:
        file.seek(100_000)
        file.write(b"changed")
    expected = DATA[:100_000] + b"changed" + DATA[100_007:]
    large.rename(tree.root / "renamed")
    tree.command("sync", str(tree.root))
    client = s3_server.client()
    for one in client.list_objects_v2(Bucket=bucket)["Contents"]:
        content = client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
        assert MARK not in content
        assert b"a secret note" not in content

    tree.umount()
    tree.forget_everything()
    mount()
    assert {one.name: one.stat().st_size for one in tree.root.iterdir()} == {"renamed": len(DATA), "small": len(MARK)}
    with open(tree.root / "renamed", "rb") as file:
        file.seek(99_990)
        assert file.read(30) == expected[99_990:100_020]
    assert (tree.root / "renamed").read_bytes() == expected
    assert os.getxattr(tree.root / "small", "user.note") == b"a secret note"

    # A daemon that dies while it uploads finds its own bytes again: nothing becomes a conflict.
    for number in range(20):
        (tree.root / f"f{number}").write_bytes(DATA[: 10_000 + number])
    kill_daemon(tree)
    mount()
    tree.command("sync", str(tree.root))
    names = {one.name for one in tree.root.iterdir()}
    assert names == {"renamed", "small", *(f"f{number}" for number in range(20))}
    assert (tree.root / "f7").read_bytes() == DATA[:10_007]
