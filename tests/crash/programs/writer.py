"""writer.py ROOT MANIFEST SEED [FACE]: change files below ROOT until it fails, and note in MANIFEST what was begun and done.

FACE is ``mount`` (a directory) or ``fsspec`` (a URL). Each worker has a directory of its own, whose present content it reads
first. A line of the manifest is JSON, written before a change begins ("begin": what the names are to hold afterwards), when an
fsync has returned ("synced"), and when the call that acknowledges the change has returned ("done").
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import count
from typing import Any

WORKERS = 3
NAMES = 7
LARGE = (64 << 20) + 12_345
"""Bytes of a file that is uploaded in parts."""
DIRECTORY = "directory"


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest() + f":{len(data)}"


class Manifest:
    """Lines of all workers of one process, each written by one call."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._count = count()

    def begin(self, kind: str, **fields: Any) -> int:
        number = next(self._count)
        self._write({"begin": number, "kind": kind, **fields})
        return number

    def note(self, what: str, number: int) -> None:
        self._write({what: number})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


class MountWorker:
    """One thread with a directory of its own in a mount."""

    def __init__(self, root: str, manifest: Manifest, seed: str) -> None:
        self.root = root
        self.manifest = manifest
        self.chance = random.Random(seed)
        self.inodes: dict[str, int] = {}
        self.contents: dict[int, bytes] = {}
        self.directories: set[str] = set()
        self._numbers = count()
        self._begun = -1
        self._load()

    def _load(self) -> None:
        known: dict[int, int] = {}
        for directory, folders, files in os.walk(self.root):
            inside = os.path.relpath(directory, self.root)
            base = "" if inside == "." else f"{inside}/"
            self.directories.update(base + name for name in folders)
            for name in files:
                path = os.path.join(directory, name)
                number = os.stat(path).st_ino
                if number not in known:
                    with open(path, "rb") as file:
                        known[number] = self._new(file.read())
                self.inodes[base + name] = known[number]

    def _new(self, data: bytes) -> int:
        number = next(self._numbers)
        self.contents[number] = data
        return number

    def run(self) -> None:
        kinds: list[tuple[int, Callable[[], None]]] = [
            (6, self.write), (4, self.replace), (4, self.in_place), (3, self.append), (4, self.rename),
            (1, self.rename_directory), (3, self.remove), (2, self.link), (2, self.truncate), (1, self.make_directory),
            (1, self.remove_directory), (3, self.read), (1, self.flush), (1, self.write_on),
        ]  # fmt: skip
        weights = [weight for weight, _ in kinds]
        while True:
            try:
                self.chance.choices([act for _, act in kinds], weights)[0]()
            except OSError as error:
                if error.errno != errno.ENOSPC:  # the cache holds less than a large file: nothing was changed
                    raise
                self.manifest.note("refused", self._begun)

    # -- names -------------------------------------------------------------------------------------------------------

    def at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def new_name(self) -> str:
        folder = self.chance.choice(["", "", *(f"{name}/" for name in self.directories)])
        return f"{folder}f{self.chance.randrange(NAMES)}"

    def known(self) -> str | None:
        return self.chance.choice(sorted(self.inodes)) if self.inodes else None

    def data(self) -> bytes:
        size = self.chance.choice((0, 10, 300, 5_000, 20_000, 70_000, 300_000, 1_200_000, 3_000_000))
        if self.chance.random() < 0.01:
            head = self.chance.randbytes(4096)
            return head + bytes(LARGE - 8192) + head
        return self.chance.randbytes(size)

    def _names_of(self, name: str) -> list[str]:
        number = self.inodes.get(name)
        return [name] if number is None else sorted(one for one, other in self.inodes.items() if other == number)

    def _begin(self, kind: str, changes: dict[str, str | None], **fields: Any) -> int:
        inside = {f"{os.path.basename(self.root)}/{name}": value for name, value in changes.items()}
        self._begun = self.manifest.begin(kind, names=inside, **fields)
        return self._begun

    # -- bytes -------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Create, or truncate and write."""
        name, data, synced = self.new_name(), self.data(), self.chance.random() < 0.3
        number = self._begin("write", dict.fromkeys(self._names_of(name), digest(data)))
        file = os.open(self.at(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._end(number, file, [(data, 0)], synced)
        self._hold(name, data)

    def _hold(self, name: str, data: bytes) -> None:
        if name in self.inodes:
            self.contents[self.inodes[name]] = data
        else:
            self.inodes[name] = self._new(data)

    def _end(self, number: int, file: int, pieces: list[tuple[bytes, int]], synced: bool) -> None:
        try:
            for data, offset in pieces:
                for start in range(0, len(data), 1 << 20):
                    piece = data[start : start + (1 << 20)]
                    if len(piece) < 1 << 20 or any(piece):  # a large file has a hole
                        _write_all(file, piece, offset + start)
            if synced:
                os.fsync(file)
                self.manifest.note("synced", number)
        finally:
            os.close(file)
        self.manifest.note("done", number)

    def replace(self) -> None:
        """The way checkpoints are saved: a temporary file, fsync, rename."""
        name, data, synced = self.new_name(), self.data(), self.chance.random() < 0.7
        made = f"{name}.tmp"
        number = self._begin("write", dict.fromkeys(self._names_of(made), digest(data)))
        file = os.open(self.at(made), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._end(number, file, [(data, 0)], synced)
        self._hold(made, data)
        self._rename(made, name)

    def in_place(self) -> None:
        """Write some ranges of a file."""
        name = self.known()
        if name is None or not self.contents[self.inodes[name]]:
            return
        before = bytearray(self.contents[self.inodes[name]])
        pieces = []
        for _ in range(self.chance.randrange(1, 4)):
            offset = self.chance.randrange(len(before))
            data = self.chance.randbytes(min(len(before) - offset, self.chance.choice((1, 100, 5000))))
            before[offset : offset + len(data)] = data
            pieces.append((data, offset))
        self._change(name, bytes(before), os.O_RDWR, pieces, self.chance.random() < 0.3)

    def append(self) -> None:
        """Write at the end."""
        name = self.known()
        if name is None:
            return
        before = self.contents[self.inodes[name]]
        data = self.chance.randbytes(self.chance.choice((10, 3000, 40_000)))
        self._change(name, before + data, os.O_WRONLY, [(data, len(before))], self.chance.random() < 0.5)

    def _change(self, name: str, after: bytes, flags: int, pieces: list[tuple[bytes, int]], synced: bool) -> None:
        number = self._begin("in place", dict.fromkeys(self._names_of(name), digest(after)))
        self._end(number, os.open(self.at(name), flags), pieces, synced)
        self.contents[self.inodes[name]] = after

    def write_on(self) -> None:
        """Sync, write one range more, and close: a crash between leaves it with or without that range."""
        name = self.known()
        if name is None or not self.contents[self.inodes[name]]:
            return
        first = self.contents[self.inodes[name]] + self.chance.randbytes(500)
        last = self.chance.randbytes(300)
        names = self._names_of(name)
        number = self._begin(
            "write on",
            dict.fromkeys(names, digest(first + last)),
            synced={self._full(one): digest(first) for one in names},
        )
        file = os.open(self.at(name), os.O_WRONLY)
        try:
            _write_all(file, first[-500:], len(first) - 500)
            os.fsync(file)
            self.manifest.note("synced", number)
            _write_all(file, last, len(first))
        finally:
            os.close(file)
        self.manifest.note("done", number)
        self.contents[self.inodes[name]] = first + last

    def _full(self, name: str) -> str:
        return f"{os.path.basename(self.root)}/{name}"

    def truncate(self) -> None:
        name = self.known()
        if name is None:
            return
        before = self.contents[self.inodes[name]]
        size = self.chance.randrange(len(before) + 100)
        after = before[:size].ljust(size, b"\0")
        number = self._begin("truncate", dict.fromkeys(self._names_of(name), digest(after)))
        os.truncate(self.at(name), size)
        self.manifest.note("done", number)
        self.contents[self.inodes[name]] = after

    def read(self) -> None:
        name = self.known()
        if name is None:
            return
        with open(self.at(name), "rb") as file:
            data = file.read()
        if data != self.contents[self.inodes[name]]:
            self.manifest.begin("wrong", name=self._full(name), seen=digest(data), names={})

    def flush(self) -> None:
        """Wait until the store has one file: some are there, others are pending."""
        name = self.known()
        if name is not None:
            os.setxattr(self.at(name), "user.fsdriver.flush", b"1")

    # -- names -------------------------------------------------------------------------------------------------------

    def rename(self) -> None:
        name = self.known()
        if name is not None:
            self._rename(name, self.new_name())

    def _rename(self, name: str, target: str) -> None:
        if self.inodes.get(target) == self.inodes[name]:
            return
        number = self._begin("rename", {name: None, target: digest(self.contents[self.inodes[name]])})
        os.rename(self.at(name), self.at(target))
        self.manifest.note("done", number)
        self.inodes[target] = self.inodes.pop(name)

    def rename_directory(self) -> None:
        if not self.directories:
            return
        name, target = self.chance.choice(sorted(self.directories)), f"d{self.chance.randrange(20)}"
        if target in self.directories:
            return
        inside = [one for one in self.inodes if one.startswith(f"{name}/")]
        changes: dict[str, str | None] = {name: None, target: DIRECTORY}
        changes |= dict.fromkeys(inside)
        changes |= {target + one.removeprefix(name): digest(self.contents[self.inodes[one]]) for one in inside}
        number = self._begin("rename directory", changes)
        os.rename(self.at(name), self.at(target))
        self.manifest.note("done", number)
        for one in inside:
            self.inodes[target + one.removeprefix(name)] = self.inodes.pop(one)
        self.directories = (self.directories - {name}) | {target}

    def remove(self) -> None:
        name = self.known()
        if name is None:
            return
        number = self._begin("remove", {name: None})
        os.unlink(self.at(name))
        self.manifest.note("done", number)
        del self.inodes[name]

    def link(self) -> None:
        name, target = self.known(), self.new_name()
        if name is None or target in self.inodes:
            return
        number = self._begin("link", {target: digest(self.contents[self.inodes[name]])})
        os.link(self.at(name), self.at(target))
        self.manifest.note("done", number)
        self.inodes[target] = self.inodes[name]

    def make_directory(self) -> None:
        name = f"d{self.chance.randrange(20)}"
        if name in self.directories or len(self.directories) > 3:
            return
        number = self._begin("mkdir", {name: DIRECTORY})
        os.mkdir(self.at(name))
        self.manifest.note("done", number)
        self.directories.add(name)

    def remove_directory(self) -> None:
        empty = sorted(d for d in self.directories if not any(one.startswith(f"{d}/") for one in self.inodes))
        if not empty:
            return
        number = self._begin("rmdir", {empty[0]: None})
        os.rmdir(self.at(empty[0]))
        self.manifest.note("done", number)
        self.directories.discard(empty[0])


def _write_all(file: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(file, data, offset)
        data, offset = data[done:], offset + done


GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
"""What a program is told when the daemon dies."""


def _work(worker: MountWorker, failures: list[BaseException]) -> None:
    try:
        worker.run()
    except OSError as error:
        if error.errno not in GONE:
            failures.append(error)


def main(root: str, manifest_path: str, seed: str) -> int:
    manifest = Manifest(manifest_path)
    workers = []
    for number in range(WORKERS):
        folder = f"{root}/w{number}"
        os.makedirs(folder, exist_ok=True)
        workers.append(MountWorker(folder, manifest, f"{seed} {number}"))
    failures: list[BaseException] = []
    threads = [threading.Thread(target=_work, args=(worker, failures)) for worker in workers]
    manifest.begin("ready", names={})
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        traceback.print_exception(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
