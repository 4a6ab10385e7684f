"""saver.py ROOT MANIFEST SEED: save checkpoints, append to logs and rewrite files, and note what was promised to survive.

Every file but the logs is one version in the form of soak.py. A line of the manifest is a name and the number of its version, or
record, written once fsync (of the directory, where it was renamed) has returned.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.mount.programs.scripts import soak

CHECKPOINTS, LOGS, PLAIN = 2, 2, 2
SIZES = (100, 5_000, 130_000, 1_500_000)


class Saver:
    """What all threads share."""

    def __init__(self, root: str, manifest: str, seed: str) -> None:
        self.root = root
        self.seed = seed
        self._manifest = os.open(manifest, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def promised(self, name: str, number: int) -> None:
        os.write(self._manifest, f"{name} {number}\n".encode())

    def checkpoints(self, name: str) -> None:
        chance, path = random.Random(f"{self.seed} {name}"), f"{self.root}/{name}"
        number = _number_of(path)
        while True:
            number += 1
            with open(f"{path}.tmp", "wb", buffering=0) as file:
                file.write(soak.make(0, number, chance.choice(SIZES)))
                os.fsync(file.fileno())
            os.replace(f"{path}.tmp", path)
            if chance.random() < 0.5:
                directory = os.open(self.root, os.O_RDONLY)
                os.fsync(directory)
                os.close(directory)
                self.promised(name, number)

    def log(self, name: str) -> None:
        path = f"{self.root}/{name}"
        record = len(soak.make(0, 0, 100))
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, os.stat(path).st_size // record * record)
        while True:
            with open(path, "ab", buffering=0) as file:
                for _ in range(5):
                    number = os.fstat(file.fileno()).st_size // record
                    file.write(soak.make(0, number, 100))
                    os.fsync(file.fileno())
                    self.promised(name, number)

    def plain(self, name: str) -> None:
        """Nobody syncs it: whole, in some version, or not there."""
        chance, path, number = random.Random(f"{self.seed} {name}"), f"{self.root}/{name}", 0
        while True:
            number += 1
            with open(path, "wb") as file:
                file.write(soak.make(0, number, chance.choice(SIZES)))


def _number_of(path: str) -> int:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        return int(soak.HEADER.unpack(file.read(soak.HEADER.size))[2])
    return 0


def _until_it_fails(work, name: str) -> None:
    with contextlib.suppress(OSError):
        work(name)


def main(root: str, manifest: str, seed: str) -> None:
    saver = Saver(root, manifest, seed)
    kinds = (
        ("checkpoint", saver.checkpoints, CHECKPOINTS), ("log", saver.log, LOGS), ("plain", saver.plain, PLAIN),
    )  # fmt: skip
    threads = [
        threading.Thread(target=_until_it_fails, args=(work, f"{kind}-{number}"))
        for kind, work, count in kinds
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:4])
