"""The pieces of work the figures time: the clock covers the file-system calls only."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.environment import MIB

RANDOM_SECONDS: Final = 3.0


def read_through(path: Path, step: int = MIB) -> float:
    """MB/s of one sequential pass."""
    buffer = bytearray(step)
    total = 0
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total / (time.perf_counter() - began) / 1e6


def random_reads(path: Path, block: int = 4096, seconds: float = RANDOM_SECONDS) -> float:
    """Reads of ``block`` bytes a second at random aligned offsets, one at a time: fio (psync) where it is installed."""
    fio = shutil.which("fio")
    return _pread_loop(path, block, seconds) if fio is None else _fio(fio, path, block, seconds)


def _fio(program: str, path: Path, block: int, seconds: float) -> float:
    command = [
        program, "--name=random", f"--filename={path}", "--readonly", "--rw=randread", f"--bs={block}",
        "--ioengine=psync", "--invalidate=0", "--time_based", f"--runtime={seconds}", "--randrepeat=0",
        "--norandommap", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["jobs"][0]["read"]["iops"])


def _pread_loop(path: Path, block: int, seconds: float) -> float:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        offsets = [block * random.randrange(os.fstat(descriptor).st_size // block) for _ in range(20_000)]
        count = 0
        began = time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            for offset in offsets:
                os.pread(descriptor, block, offset)
            count += len(offsets)
        return count / passed
    finally:
        os.close(descriptor)


def open_read_close(paths: Sequence[str], rounds: int, block: int = 4096) -> float:
    """Files a second, each opened, read once and closed."""
    began = time.perf_counter()
    for _ in range(rounds):
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, block)
            os.close(descriptor)
    return rounds * len(paths) / (time.perf_counter() - began)


def read_files(paths: Sequence[str], threads: int = 8) -> float:
    """Files a second, each read whole, by several threads in shuffled order."""
    order = list(paths)
    random.shuffle(order)

    def read(path: str) -> int:
        with open(path, "rb", buffering=0) as file:
            return len(file.read())

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        count = sum(1 for _ in pool.map(read, order))
    return count / (time.perf_counter() - began)


def create_files(directory: Path, count: int, data: bytes) -> float:
    """Files a second, each created, written and closed."""
    directory.mkdir()
    paths = [str(directory / f"{number:05d}") for number in range(count)]
    began = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)
    return count / (time.perf_counter() - began)


def walk(directory: Path) -> float:
    """Entries a second of ``find -ls``."""
    began = time.perf_counter()
    done = subprocess.run(["find", str(directory), "-ls"], capture_output=True, check=True)
    return done.stdout.count(b"\n") / (time.perf_counter() - began)
