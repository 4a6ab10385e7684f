"""The pieces of work that several workloads time, and the checks of what they gave: clocks cover the first only."""

from __future__ import annotations

import json
import mmap
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import obstore
from obstore.store import S3Store

from benchmarks.environment import MIB, WrongContent
from benchmarks.mounts import Mount

THREADS: Final = 8
RANDOM_SECONDS: Final = 2
POLL_SECONDS: Final = 0.02
DURABLE_SECONDS: Final = 120.0


def read_through(path: Path, step: int = MIB) -> float:
    """MB/s of one sequential pass."""
    return read_and_watch(path, step)["MB/s"]


def read_and_watch(path: Path, step: int = MIB) -> dict[str, float]:
    """The same, and MB for each second of the reader's processor time."""
    buffer = bytearray(step)
    total = 0
    used, began = time.thread_time(), time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    passed, used = time.perf_counter() - began, time.thread_time() - used
    return {"MB/s": total / passed / 1e6, "MB/CPU s": total / used / 1e6}


def random_reads(path: Path, jobs: int = 1) -> dict[str, float]:
    """Reads of 4 KiB at random offsets by fio (psync), each job one at a time: each second, and for each of processor time."""
    command = [
        "fio", "--name=random", f"--filename={path}", "--readonly", "--rw=randread", "--bs=4k", "--ioengine=psync",
        "--invalidate=0", "--time_based", f"--runtime={RANDOM_SECONDS}", "--randrepeat=0", "--norandommap",
        f"--numjobs={jobs}", "--group_reporting", "--thread", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    job = json.loads(done.stdout)["jobs"][0]
    used = job["job_runtime"] / 1000 * (job["usr_cpu"] + job["sys_cpu"]) / 100
    suffix = f" of {jobs}" if jobs > 1 else ""
    return {f"reads/s{suffix}": job["read"]["iops"], f"reads/CPU s{suffix}": job["read"]["total_ios"] / used}


def read_files(paths: Sequence[str], read: Callable[[str], int]) -> float:
    """Files a second, each read whole, by several threads in shuffled order."""
    order = random.sample(paths, len(paths))
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        count = sum(1 for _ in pool.map(read, order))
    return count / (time.perf_counter() - began)


def read_file(path: str) -> int:
    """Length of a file that is read whole."""
    with open(path, "rb", buffering=0) as file:
        return len(file.read())


def create_files(directory: Path, names: Sequence[str], data: bytes) -> float:
    """Files a second, each created, written and closed."""
    paths = [str(directory / name) for name in names]
    began = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)
    return len(names) / (time.perf_counter() - began)


def download(store: S3Store, key: str, size: int, keep: Path | None = None) -> float:
    """MB/s of 8 MiB ranges by 8 threads; the bytes are thrown away, or kept in a file."""
    step = 8 * MIB
    descriptor = os.open(keep, os.O_WRONLY | os.O_CREAT) if keep else -1

    def fetch(start: int) -> int:
        data = obstore.get_range(store, key, start=start, end=min(start + step, size))
        return os.pwrite(descriptor, data, start) if keep else len(data)

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        total = sum(pool.map(fetch, range(0, size, step)))
    passed = time.perf_counter() - began
    if keep:
        os.close(descriptor)
    if total != size:
        raise WrongContent(f"{total} bytes of {key} instead of {size}")
    return size / passed / 1e6


# -- checks ----------------------------------------------------------------------------------------------------------


def check_file(path: Path, expected: Path) -> None:
    """Both have the same bytes.

    Raises
    ------
    WrongContent
    """
    offset = 0
    with path.open("rb") as one, expected.open("rb") as other:
        while True:
            ours, theirs = one.read(MIB), other.read(MIB)
            if ours != theirs:
                raise WrongContent(f"{path} differs within 1 MiB from offset {offset}")
            if not ours:
                return
            offset += len(ours)


def check_parts(parts: Mapping[int, bytes], expected: Path) -> None:
    """Bytes by offset are those of the file. Raises WrongContent."""
    with expected.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        for offset, data in parts.items():
            if whole[offset : offset + len(data)] != data:
                raise WrongContent(f"{len(data)} bytes at offset {offset} are not those of the object")


def check_object(store: S3Store, key: str, expected: bytes | Path) -> None:
    """The bucket has these bytes. Raises WrongContent."""
    data = expected if isinstance(expected, bytes) else expected.read_bytes()
    if bytes(obstore.get(store, key).bytes()) != data:
        raise WrongContent(f"the object {key} has other bytes than were written")


def wait_durable(mount: Mount, store: S3Store, sizes: Mapping[str, int]) -> None:
    """Until the bucket has objects of these sizes, all in one folder: asked of our daemon; of others by listing.

    Raises
    ------
    TimeoutError
        It has not.
    """
    if mount.sync() or not mount.plain:
        return
    prefix = os.path.dirname(next(iter(sizes))) or None
    deadline = time.monotonic() + DURABLE_SECONDS
    while time.monotonic() < deadline:
        found = {entry["path"]: entry["size"] for page in obstore.list(store, prefix) for entry in page}
        if all(found.get(key) == size for key, size in sizes.items()):
            return
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"not all of {len(sizes)} objects are in the bucket after {DURABLE_SECONDS:.0f} s")
