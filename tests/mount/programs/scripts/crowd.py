"""crowd.py DIRECTORY COUNT: two processes create and unlink in one directory while this one lists it."""

# ruff: noqa: T201  what is printed is what is compared

from __future__ import annotations

import os
import sys
from multiprocessing import Process, SimpleQueue

STEADY = frozenset(f"steady{number}" for number in range(100))
PROGRESS = 100


def work(directory: str, numbers: range, progress: SimpleQueue[bool]) -> None:
    """Create every name, remove every sixth one again; say so now and then, and at the end."""
    for count, number in enumerate(numbers, 1):
        path = os.path.join(directory, f"e{number:05d}")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)
        if number % 6 >= 4 and number % 12 < 6:
            os.unlink(path)
        if count % PROGRESS == 0:
            progress.put(False)
    progress.put(True)


def main(directory: str, count: int) -> None:
    """List all the while: what is neither made nor removed meanwhile is seen exactly once."""
    os.mkdir(directory)
    for name in STEADY:
        with open(os.path.join(directory, name), "wb"):
            pass
    made = count * 6 // 5
    progress: SimpleQueue[bool] = SimpleQueue()
    workers = [Process(target=work, args=(directory, range(start, made, 2), progress)) for start in (0, 1)]
    for worker in workers:
        worker.start()
    ended = 0
    while ended < len(workers):
        ended += progress.get()
        names = os.listdir(directory)
        assert len(names) == len(set(names)), "a name was listed twice"
        assert set(names) >= STEADY, f"missing from a listing: {sorted(STEADY - set(names))[:5]}"
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    left = set(os.listdir(directory)) - STEADY
    assert left == {f"e{number:05d}" for number in range(made) if not (number % 6 >= 4 and number % 12 < 6)}
    assert all(os.path.exists(os.path.join(directory, name)) for name in sorted(left)[::40])
    print(len(left))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
