"""The faces of one tree that the model works through, and what each of them does on the plain directory."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fsdriver import engine as engines
from fsdriver.filesystem import TierFileSystem
from fsdriver.fuse_mount.control import request
from tests.mount.conftest import MountedTree

PATIENCE = 60.0


class Foreign(Protocol):
    """Another program that works on the store itself."""

    def put(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None: ...

    def objects(self, directory: str) -> dict[str, bytes]:
        """Contents of all objects below a directory, by name; markers and records are left out."""


class ForeignFiles:
    """Works on the directory of a local route."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, data: bytes) -> None:
        new = self.root.parent / f"foreign-{secrets.token_hex(4)}"
        new.write_bytes(data)
        new.replace(self.root / name)

    def delete(self, name: str) -> None:
        (self.root / name).unlink()

    def objects(self, directory: str) -> dict[str, bytes]:
        top = self.root / directory
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


class ForeignTiers:
    """Works on the directories of two tiers: writes into the hot one, and sees and removes what is in either."""

    def __init__(self, hot: Path, cold: Path) -> None:
        self.tiers = ForeignFiles(hot), ForeignFiles(cold)

    def put(self, name: str, data: bytes) -> None:
        (self.tiers[0].root / name).parent.mkdir(parents=True, exist_ok=True)
        self.tiers[0].put(name, data)

    def delete(self, name: str) -> None:
        for tier in self.tiers:
            (tier.root / name).unlink(missing_ok=True)

    def objects(self, directory: str) -> dict[str, bytes]:
        hot, cold = (tier.objects(directory) for tier in self.tiers)
        return cold | hot


class ForeignObjects:
    """Works on a bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self.prefix = client, bucket, prefix

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")

    def objects(self, directory: str) -> dict[str, bytes]:
        top = f"{self.prefix}/{directory}/"
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=top):
            for one in page.get("Contents", []):
                if not one["Key"].endswith("/"):
                    body = self.client.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read()
                    found[one["Key"][len(top) :]] = body
        return found


class Sides:
    """One tree: mounted, through fsspec in this process, and its store from outside; and the plain directory beside it.

    Parameters
    ----------
    tree : MountedTree
        Mounted.
    foreign : Foreign
    plain : Path
        An empty directory of a local file system.
    config : mapping, optional
        Of the tree; by default one route over its URL.
    """

    def __init__(
        self, tree: MountedTree, foreign: Foreign, plain: Path, config: Mapping[str, Any] | None = None
    ) -> None:
        self.tree = tree
        self.foreign = foreign
        self.plain = plain
        self.spare = plain / ".spare"
        self.spare.mkdir()
        self._kept = {name: os.environ.get(name) for name in tree.env}
        os.environ.update(tree.env)
        config = config or {"backend": {"b": {"url": tree.url}}, "route": [{"path": "/", "tiers": ["b"]}]}
        self.tiers: Sequence[str] = config["route"][0]["tiers"]
        self.fs = TierFileSystem(config=config, skip_instance_cache=True)

    def end(self) -> None:
        """Close this process's engine and put the environment back."""
        for engine in list(engines._registry.values()):
            engine.close()
        TierFileSystem.clear_instance_cache()
        for name, value in self._kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def sync(self) -> None:
        """Wait until the store has everything."""
        request(self.tree.root, "sync", path="/", timeout=PATIENCE)

    def staged(self) -> set[str]:
        """Names of the staging files."""
        return set(os.listdir(self.tree.places / "cache" / ".staging"))

    def refresh(self, directory: str) -> None:
        """What both faces remember of a directory is asked for again."""
        request(self.tree.root, "refresh", path=f"/{directory}")
        self.fs.invalidate_cache(directory)

    # -- what a call of fsspec does, on the plain directory ------------------------------------------------------------

    def replace(self, path: str, data: bytes) -> None:
        """A new file takes a name, whole and at once; attributes of the one before stay, but not its other names."""
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        with self.new_file() as new:
            new.write_bytes(data)
            new.chmod(0o644)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                os.chown(new, status.st_uid, status.st_gid)
                new.chmod(status.st_mode & 0o7777)
                for name in os.listxattr(path):
                    os.setxattr(new, name, os.getxattr(path, name))
            os.rename(new, path)

    def copy(self, source: str, target: str) -> None:
        """A copy with the attributes of its source."""
        data = Path(source).read_bytes()
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, "is a directory", target)
        with self.new_file() as new:
            new.write_bytes(data)
            status = os.lstat(source)
            os.chown(new, status.st_uid, status.st_gid)
            new.chmod(status.st_mode & 0o7777)
            for name in os.listxattr(source):
                os.setxattr(new, name, os.getxattr(source, name))
            os.rename(new, target)

    @contextlib.contextmanager
    def new_file(self) -> Iterator[Path]:
        path = self.spare / secrets.token_hex(4)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def clear(self, path: Path) -> None:
        shutil.rmtree(path)
