"""Another process that works on the store of a mount through fsspec."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

from tests.mount.conftest import MountedTree

PEER = """
import base64, json, sys
import fsspec

filesystem, root = fsspec.url_to_fs(sys.argv[1])
opened = {}

def path(name):
    return f"{root}/{name}"

def cat(name):
    return base64.b64encode(filesystem.cat_file(path(name))).decode()

def write(name, data):
    filesystem.pipe_file(path(name), base64.b64decode(data))

def begin(name, mode):
    opened[name] = filesystem.open(path(name), mode)

def more(name, data):
    opened[name].write(base64.b64decode(data))
    opened[name].flush()

def end(name):
    opened.pop(name).close()

def size(name):
    return filesystem.info(path(name))["size"]

def ls():
    return sorted(one.rpartition("/")[2] for one in filesystem.ls(path("work"), detail=False))

def exists(name):
    return filesystem.exists(path(name))

def rm(name):
    filesystem.rm_file(path(name))

def mv(one, other):
    filesystem.mv(path(one), path(other))

for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = {"value": globals()[name](*arguments)}
    except OSError as error:
        answer = {"error": [error.errno, str(error)]}
    print(json.dumps(answer), flush=True)
"""


class Peer:
    """Another process that works through ``tier::`` on the store of a mount, and remembers what it saw."""

    def __init__(self, tree: MountedTree) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PEER, f"tier::{tree.url}"],
            env=tree.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise OSError(*answer["error"])
        return answer["value"]

    def cat(self, name: str) -> bytes:
        return base64.b64decode(self("cat", name))

    def write(self, name: str, data: bytes) -> None:
        self("write", name, base64.b64encode(data).decode())

    def more(self, name: str, data: bytes) -> None:
        self("more", name, base64.b64encode(data).decode())

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
