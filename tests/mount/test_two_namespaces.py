"""Two hosts, each with a network of its own, on one bucket; the cable of one is pulled while both write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsdriver.testing.servers import S3Service
from tests.mount.conftest import MountedTree, fuse  # noqa: F401 - a fixture
from tests.mount.foreign import Foreign
from tests.servers import FaultyProxy
from tests.waiting import wait_for

OPTIONS = ("ttl=1s", "timeout=4s")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Host:
    """A tree whose daemon has a network namespace of its own, and its cable; the mount itself is seen from here."""

    tree: MountedTree
    link: str

    def pull(self) -> None:
        ip("link", "set", self.link, "down")

    def plug(self) -> None:
        ip("link", "set", self.link, "up")


def connect(clean: ExitStack, number: int, server: S3Service, bucket: str, place: Path) -> Host:
    """A namespace with one link, at whose other end is a way to the server."""
    name = f"fsd{os.getpid()}-{number}"
    here, there = f"fd{os.getpid()}h{number}", f"fd{os.getpid()}t{number}"
    # Addresses for tests of networks (RFC 2544).
    address, far = (f"198.18.{os.getpid() % 256}.{4 * number + last}" for last in (1, 2))
    ip("netns", "add", name)
    clean.callback(ip, "netns", "delete", name)
    ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
    ip("address", "add", f"{address}/30", "dev", here)
    ip("link", "set", here, "up")
    ip("-n", name, "address", "add", f"{far}/30", "dev", there)
    ip("-n", name, "link", "set", there, "up")
    ip("-n", name, "link", "set", "lo", "up")
    proxy = clean.enter_context(FaultyProxy(server.endpoint, address))
    environment = {**server.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}
    tree = MountedTree(f"s3://{bucket}/p", place, environment, OPTIONS, ("nsenter", f"--net=/run/netns/{name}"))
    clean.callback(tree.end)
    return Host(tree, here)


@pytest.fixture
def hosts(fuse, tmp_path: Path, s3_server: S3Service) -> Iterator[tuple[Host, Host, Foreign]]:  # noqa: F811
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nsenter"):
        pytest.skip("needs root, ip and nsenter")
    bucket = s3_server.create_bucket()
    with ExitStack() as clean:
        try:
            one, other = (connect(clean, number, s3_server, bucket, tmp_path / f"h{number}") for number in (0, 1))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr!r}")
        yield one, other, Foreign(one.tree, s3_server.client())


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_first_wins_and_the_other_keeps_its_bytes(hosts: tuple[Host, Host, Foreign]) -> None:
    one, other, bucket = hosts
    one.tree.mount()
    other.tree.mount()
    (one.tree.root / "f").write_bytes(b"before")
    (one.tree.root / "untouched").write_bytes(b"same")
    one.tree.command("sync", str(one.tree.root))
    wait_for((other.tree.root / "f").exists)
    assert (other.tree.root / "f").read_bytes() == b"before"
    assert sorted(os.listdir(one.tree.root)) == ["f", "untouched"]

    one.pull()
    (one.tree.root / "f").write_bytes(b"of the one")
    (one.tree.root / "new").write_bytes(b"of the one alone")
    (other.tree.root / "f").write_bytes(b"of the other")
    other.tree.command("sync", str(other.tree.root))
    assert (one.tree.root / "untouched").read_bytes() == b"same"
    assert bucket.get("f") == b"of the other"
    assert sorted(bucket.keys()) == ["f", "untouched"]

    one.plug()
    told = one.tree.command("sync", str(one.tree.root), check=False)
    wait_for(lambda: "new" in bucket.keys() and len(bucket.keys()) == 4)  # noqa: SIM118
    assert bucket.get("f") == b"of the other"
    assert bucket.get("new") == b"of the one alone"
    (kept,) = set(bucket.keys()) - {"f", "new", "untouched"}
    assert kept.startswith("f.conflict-")
    assert bucket.get(kept) == b"of the one"
    assert told.returncode == 0 or kept in told.stderr
    for host in (one, other):
        wait_for(lambda: sorted(os.listdir(host.tree.root)) == ["f", kept, "new", "untouched"])  # noqa: B023
        wait_for(lambda: (host.tree.root / "f").read_bytes() == b"of the other")  # noqa: B023
        host.tree.umount()
