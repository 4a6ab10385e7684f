"""Another writer: changes the bucket with its own tools and tells nobody."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.mount.conftest import MountedTree


class Foreign:
    """What another program does to the bucket of a tree; each change of a key is one step."""

    def __init__(self, tree: MountedTree, client: Any = None) -> None:
        self.client = client
        url = urlsplit(tree.url)
        self._bucket = url.netloc
        self._prefix = url.path.strip("/")
        self._root = Path(url.path) if client is None else None

    def put(self, key: str, data: bytes) -> None:
        if self._root is None:
            self.client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}", Body=data)
            return
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._root.parent, delete=False) as file:
            file.write(data)
        os.replace(file.name, target)

    def get(self, key: str) -> bytes:
        if self._root is None:
            body: bytes = self.client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")["Body"].read()
            return body
        return (self._root / key).read_bytes()

    def delete(self, key: str) -> None:
        if self._root is None:
            self.client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{key}")
        else:
            (self._root / key).unlink()

    def delete_below(self, key: str) -> None:
        """Everything in a directory, and the directory."""
        if self._root is not None:
            shutil.rmtree(self._root / key)
            return
        for one in self.keys():
            if one.startswith(f"{key}/"):
                self.delete(one)
        self.delete(f"{key}/")  # some servers keep a directory after its last key

    def keys(self) -> list[str]:
        """Keys of files of the tree, without what fsdriver keeps for itself."""
        if self._root is not None:
            found = [path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file()]
        else:
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}/"
            )
            found = [
                item["Key"].removeprefix(f"{self._prefix}/") for page in pages for item in page.get("Contents", [])
            ]
        return [key for key in found if not key.startswith(".fsdriver/") and not key.endswith("/")]
