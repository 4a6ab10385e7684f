"""Programs do on a mount what they do on a plain directory; another host sees it, and the store holds plain objects."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fsdriver import names
from fsdriver.testing.servers import S3Service
from tests.mount.conftest import OPTIONS, MountedTree, TreeMaker

from . import archives, crowds, data, developers
from .running import Program
from .trees import ALWAYS, EVERYTHING, Seen, differences, snapshot

PROGRAMS = [*archives.PROGRAMS, *developers.PROGRAMS, *data.PROGRAMS, *crowds.PROGRAMS]
CASES = [
    pytest.param(kind, write, program, id=f"{kind}-{write}-{program.name}")
    for kind, write in (("local", "back"), ("libfuse", "back"), ("s3", "back"), ("s3", "through"))
    for program in PROGRAMS
    if (write == "back" or program.through) and (kind != "libfuse" or program.libfuse)
]
PREFIX = "inner/prefix"


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    return archives.make_material(tmp_path_factory.mktemp("material"))


@pytest.mark.parametrize(("kind", "write", "program"), CASES)
@pytest.mark.timeout(300)
def test_program(kind: str, write: str, program: Program, trees: TreeMaker, tmp_path, material, request):
    tree = _tree(kind, write, trees, request)
    plain, mounted = tmp_path / "plain", tree.root / "work"
    plain.mkdir()
    expected = program.steps(plain, material)
    tree.mount()
    mounted.mkdir()
    observed = program.steps(mounted, material)
    assert observed == expected
    ours = snapshot(mounted)
    attributes = (*ALWAYS, "mtime_ns") if program.times else ALWAYS
    assert differences(snapshot(plain), ours, attributes=attributes, varying=program.varying) == []

    tree.umount()
    tree.forget_everything()
    _check_objects(kind, tree, ours, request)
    tree.mount()
    assert differences(ours, snapshot(mounted), attributes=EVERYTHING) == []
    _check_repositories(mounted)
    tree.umount()
    assert tree.daemon_pids() == []


def _tree(kind: str, write: str, trees: TreeMaker, request: pytest.FixtureRequest) -> MountedTree:
    if kind == "libfuse":
        request.getfixturevalue("libfuse")
    if kind != "s3":
        return trees(None, None, f"write={write}", *OPTIONS.get(kind, ()))
    server = request.getfixturevalue("s3_server")
    return trees(f"s3://{server.create_bucket()}/{PREFIX}", server.environment(), f"write={write}")


def _check_repositories(root: Path) -> None:
    """What git keeps is whole on the other host, too."""
    for repository in root.glob("**/.git"):
        subprocess.run(
            ["git", "-c", "safe.directory=*", "fsck", "--strict"],
            cwd=repository.parent,
            check=True,
            capture_output=True,
        )


def _check_objects(kind: str, tree: MountedTree, seen: Mapping[str, Seen], request: pytest.FixtureRequest) -> None:
    """Each regular file is one object with its bytes; besides there are only markers and what describes the tree."""
    sizes, read = _directory(tree) if kind != "s3" else _bucket(tree, request.getfixturevalue("s3_server"))
    sizes = {key: size for key, size in sizes.items() if not key.startswith(".fsdriver/")}
    files = {names.to_key(f"work/{path}"): one for path, one in seen.items() if one.kind != "d"}
    markers = {names.to_key(f"work/{path}".rstrip("/")) + "/" for path, one in seen.items() if one.kind == "d"}
    assert sorted(sizes.keys() - files.keys() - markers) == []
    assert sorted(files.keys() - sizes.keys()) == []
    regular = [(key, one) for key, one in sorted(files.items()) if one.kind == "-"]
    assert {key: sizes[key] for key, _ in regular} == {key: one.size for key, one in regular}
    for key, one in regular[:: max(1, len(regular) // 200)]:
        assert hashlib.sha256(read(key)).hexdigest() == one.content, key


def _directory(tree: MountedTree) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """Keys and sizes below a local route, and how to read one."""
    root = Path(tree.url.removeprefix("file://"))
    found = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            found[str(path.relative_to(root))] = path.stat().st_size
    return found, lambda key: (root / key).read_bytes()


def _bucket(tree: MountedTree, server: S3Service) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """Keys and sizes below the prefix, as another program lists them, and how it reads one."""
    client, bucket = server.client(), tree.url.split("/")[2]
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            found[item["Key"].removeprefix(f"{PREFIX}/")] = item["Size"]
    return found, lambda key: client.get_object(Bucket=bucket, Key=f"{PREFIX}/{key}")["Body"].read()
