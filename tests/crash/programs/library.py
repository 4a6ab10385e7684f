"""library.py URL MANIFEST SEED WRITE WORKER: change files of one worker through fsspec until killed; see programs/writer.py.

The worker's directory is read first. Every file is written whole; a file that is not closed must not appear.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import fsspec

from tests.crash.programs.writer import LARGE, Manifest, digest

NAMES = 8


class LibraryWorker:
    """One process with a directory of its own."""

    def __init__(self, url: str, write: str, worker: str, manifest: Manifest, seed: str) -> None:
        self.fs, root = fsspec.url_to_fs(f"tier::{url}", write=write)
        self.worker = worker
        self.root = f"{root}/{worker}"
        self.manifest = manifest
        self.chance = random.Random(seed)
        self.known: dict[str, bytes] = {}
        if self.fs.exists(self.root):
            for path in self.fs.find(self.root):
                self.known[path.removeprefix(f"{self.root}/")] = self.fs.cat_file(path)

    def begin(self, kind: str, changes: dict[str, str | None]) -> int:
        return self.manifest.begin(kind, names={f"{self.worker}/{name}": value for name, value in changes.items()})

    def data(self) -> bytes:
        size = self.chance.choice((0, 10, 5_000, 70_000, 300_000, 2_000_000))
        return bytes(LARGE) if self.chance.random() < 0.01 else self.chance.randbytes(size)

    def run(self) -> None:
        acts: list[Any] = [self.put, self.put, self.put, self.write, self.move, self.copy, self.remove, self.read]
        while True:
            self.chance.choice(acts)()

    def new_name(self) -> str:
        folder = self.chance.choice(("", "", "d/", "d/e/"))
        return f"{folder}f{self.chance.randrange(NAMES)}"

    def put(self) -> None:
        name, data = self.new_name(), self.data()
        number = self.begin("put", {name: digest(data)})
        self.fs.pipe_file(f"{self.root}/{name}", data)
        self.manifest.note("done", number)
        self.known[name] = data

    def write(self) -> None:
        name, data = self.new_name(), self.data()
        number = self.begin("write", {name: digest(data)})
        with self.fs.open(f"{self.root}/{name}", "wb") as file:
            for start in range(0, len(data), 100_000):
                file.write(data[start : start + 100_000])
        self.manifest.note("done", number)
        self.known[name] = data

    def _pair(self) -> tuple[str, str] | None:
        target = self.new_name()
        if not self.known or (name := self.chance.choice(sorted(self.known))) == target:
            return None
        return name, target

    def move(self) -> None:
        if (pair := self._pair()) is None:
            return
        number = self.begin("move", {pair[0]: None, pair[1]: digest(self.known[pair[0]])})
        self.fs.mv(f"{self.root}/{pair[0]}", f"{self.root}/{pair[1]}")
        self.manifest.note("done", number)
        self.known[pair[1]] = self.known.pop(pair[0])

    def copy(self) -> None:
        if (pair := self._pair()) is None:
            return
        number = self.begin("copy", {pair[1]: digest(self.known[pair[0]])})
        self.fs.cp_file(f"{self.root}/{pair[0]}", f"{self.root}/{pair[1]}")
        self.manifest.note("done", number)
        self.known[pair[1]] = self.known[pair[0]]

    def remove(self) -> None:
        if not self.known:
            return
        name = self.chance.choice(sorted(self.known))
        number = self.begin("remove", {name: None})
        self.fs.rm_file(f"{self.root}/{name}")
        self.manifest.note("done", number)
        del self.known[name]

    def read(self) -> None:
        if self.known:
            name = self.chance.choice(sorted(self.known))
            data = self.fs.cat_file(f"{self.root}/{name}")
            if data != self.known[name]:
                self.manifest.begin("wrong", name=f"{self.worker}/{name}", seen=digest(data), names={})


def main(url: str, manifest_path: str, seed: str, write: str, worker: str) -> None:
    manifest = Manifest(manifest_path)
    made = LibraryWorker(url, write, worker, manifest, seed)
    manifest.begin("ready", names={})
    made.run()


if __name__ == "__main__":
    main(*sys.argv[1:6])
