"""soak.py DIRECTORY SECONDS: 8 writers and 8 readers of a few files, each of which says what it must contain.

Every file is one version: a header with writer, number and length, bytes made from these, and a checksum over all. Whoever
reads one must find one version, whole. Prints counts as JSON; the exit status is 1 if somebody saw anything else, or if one of
them made no progress for a minute.
"""

# ruff: noqa: T201  what is printed is the result

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import random
import struct
import sys
import time
from collections import Counter
from multiprocessing import Array, Process, Queue

HEADER = struct.Struct("<8sIIQ")
MAGIC = b"version:"
WRITERS, READERS = 8, 8
SHARED = 12
PATIENCE = 60.0
TOLD = {errno.ESTALE, errno.ENOENT}
"""What a reader may be told about a file that is replaced while it is opened or read."""


def make(writer: int, number: int, size: int) -> bytes:
    """One version: header, bytes, checksum."""
    head = HEADER.pack(MAGIC, writer, number, size)
    body = head + random.Random(f"{writer} {number}").randbytes(size)
    return body + hashlib.sha256(body).digest()


def check(data: bytes) -> str:
    """What is wrong with these bytes; empty if they are one version."""
    if len(data) < HEADER.size + 32:
        return f"only {len(data)} bytes"
    magic, writer, number, size = HEADER.unpack_from(data)
    if magic != MAGIC:
        return repr(data[:80])
    if len(data) != HEADER.size + size + 32:
        return f"writer {writer}, number {number}, {size} bytes, but {len(data)} are here"
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        return f"a mixture: writer {writer}, number {number}, {size} bytes"
    return ""


def _size(chance: random.Random) -> int:
    return chance.choice((100, 5_000, 130_000, 400_000, 1_500_000))


def write(root: str, writer: int, number: int, chance: random.Random) -> str:
    """Replace a shared file in one step, or change a file of this writer's own in some other way."""
    data = make(writer, number, _size(chance))
    own = f"{root}/own-{writer}"
    kind = chance.choice(("replace", "replace", "replace", "rewrite", "parts", "unlink", "rename"))
    if kind == "replace":
        with open(f"{root}/.new-{writer}", "wb") as file:
            file.write(data)
            if number % 5 == 0:
                file.flush()
                os.fsync(file.fileno())
        os.replace(f"{root}/.new-{writer}", f"{root}/shared-{chance.randrange(SHARED)}")
        return kind
    if kind == "rewrite":
        with open(own, "wb") as file:
            file.write(data)
    elif kind == "parts":
        with open(own, "w+b", buffering=0) as file:
            os.ftruncate(file.fileno(), len(data))
            for start in range(0, len(data), 70_000):
                os.pwrite(file.fileno(), data[start : start + 70_000], start)
    elif kind == "unlink":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(own)
        with open(own, "wb") as file:
            file.write(data)
    else:
        with open(own, "wb") as file:
            file.write(data)
        os.rename(own, f"{own}-moved")
        os.rename(f"{own}-moved", own)
    with open(own, "rb") as file:
        seen = file.read()
    if seen != data:
        raise AssertionError(f"{own} after {kind}: {check(seen) or 'an older version'}")
    return kind


def read(path: str, chance: random.Random) -> bytes:
    """The bytes of a file, through one open descriptor, by one of several ways."""
    with open(path, "rb", buffering=0) as file:
        kind = chance.randrange(3)
        size = os.fstat(file.fileno()).st_size
        if kind < 2:
            data = file.readall()
            if kind == 0 or not size:
                return data
            if len(data) != size:
                return b"%d bytes were read of a file of %d: " % (len(data), size) + data[:24]
            # Only now: what a mapping cannot get any more is no error but a signal.
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
                return view[:] if view[:] == data else b"another version is mapped than was read"
        pieces = {}
        starts = list(range(0, size, 50_000))
        chance.shuffle(starts)
        for start in starts:
            pieces[start] = os.pread(file.fileno(), min(50_000, size - start), start)
        return b"".join(pieces[start] for start in sorted(pieces))


def work(root: str, who: int, until: float, beats: Array, results: Queue) -> None:
    chance = random.Random(who)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    number = 0
    while time.monotonic() < until and not wrong:
        number += 1
        beats[who] = time.monotonic()
        try:
            if who < WRITERS:
                counts[write(root, who, number, chance)] += 1
                continue
            path = f"{root}/shared-{chance.randrange(SHARED)}"
            if fault := check(read(path, chance)):
                wrong.append(f"{path}: {fault}")
            counts["read"] += 1
        except AssertionError as error:
            wrong.append(str(error))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "?")
            counts[name] += 1
            if error.errno not in TOLD:
                wrong.append(f"worker {who}: {error}")
    beats[who] = float("inf")
    results.put((who, dict(counts), wrong))


def main(root: str, seconds: float) -> int:
    for shared in range(SHARED):
        with open(f"{root}/shared-{shared}", "wb") as file:
            file.write(make(99, shared, 1000))
    beats, results = Array("d", WRITERS + READERS), Queue()
    until = time.monotonic() + seconds
    workers = [
        Process(target=work, args=(root, who, until, beats, results), daemon=True) for who in range(WRITERS + READERS)
    ]
    for worker in workers:
        worker.start()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    missing = set(range(len(workers)))
    while missing:
        with contextlib.suppress(Exception):
            who, told, faults = results.get(timeout=1)
            counts.update(told)
            wrong += faults
            missing.discard(who)
        ended = {who: workers[who].exitcode for who in missing if workers[who].exitcode}
        if ended:
            wrong.append(f"workers that ended, with their status: {ended}")
            missing -= ended.keys()
        stuck = [who for who in missing if beats[who] and time.monotonic() - beats[who] > PATIENCE]
        if stuck:
            wrong.append(f"no progress for {PATIENCE:g} s: workers {stuck}")
            break
    for worker in workers:
        worker.kill()
    print(json.dumps({"counts": counts, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
