"""A mount whose cache is encrypted: the same files, and nothing of them on the disk once the store has them."""

from __future__ import annotations

from pathlib import Path

from tests.waiting import wait_for

MARK = b"what nobody is to find on this disk"
DATA = MARK * 100_000


def found(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and MARK in path.read_bytes()]


def test_an_encrypted_cache(trees, s3_server):
    tree = trees(f"s3://{s3_server.create_bucket()}/p", s3_server.environment())
    (tree.places / "config.toml").write_text('[cache]\nencryption_key = { env = "TEST_CACHE_KEY" }\n')
    tree.environment["TEST_CACHE_KEY"] = "ab" * 32
    tree.mount("allow_other")
    status = tree.status()
    assert status["passthrough"] == "off: the cache is encrypted"
    assert status["cache"]["encryption"].startswith("aes-256-gcm:")
    assert status["lent"] is None
    assert "the cache is encrypted" in tree.command("status", str(tree.root)).stdout

    large, small = tree.root / "large", tree.root / "small"
    large.write_bytes(DATA)
    small.write_bytes(MARK)
    tree.command("sync", str(tree.root))
    wait_for(lambda: not found(tree.places / "cache"))
    assert large.read_bytes() == DATA

    tree.umount()
    tree.mount()
    assert large.read_bytes() == DATA  # from the disk
    assert small.read_bytes() == MARK
    assert tree.status()["cache"]["fetches"] == 0
    with open(large, "r+b") as file:  # un-sealed while it is read
        file.seek(1000)
        file.write(b"changed")
    expected = DATA[:1000] + b"changed" + DATA[1007:]
    assert large.read_bytes() == expected
    large.rename(tree.root / "renamed")
    tree.command("sync", str(tree.root))
    wait_for(lambda: not found(tree.places / "cache"))
    assert (tree.root / "renamed").read_bytes() == expected

    tree.umount()
    tree.environment["TEST_CACHE_KEY"] = "cd" * 32
    tree.mount()
    assert (tree.root / "renamed").read_bytes() == expected
    status = tree.status()["cache"]
    assert status["fetches"] > 0
    assert status["unread"] > 0
    tree.umount()
    tree.environment["TEST_CACHE_KEY"] = "cd"
    refused = tree.command("mount", tree.url, str(tree.root), check=False)
    assert refused.returncode != 0
    assert "a key has 32 bytes" in refused.stderr
