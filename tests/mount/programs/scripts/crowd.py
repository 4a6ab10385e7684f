"""crowd.py DIRECTORY COUNT: two processes create and unlink in one directory while this one lists it."""

# ruff: noqa: T201  what is printed is what is compared

from __future__ import annotations

import multiprocessing
import os
import sys


def work(directory: str, numbers: range) -> None:
    """Create every name, remove every third one again."""
    for number in numbers:
        path = os.path.join(directory, f"e{number:05d}")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)
        if number % 3 == 2:
            os.unlink(path)


def main(directory: str, count: int) -> None:
    """List all the while: what is neither made nor removed meanwhile is seen exactly once."""
    os.mkdir(directory)
    steady = {f"steady{number}" for number in range(100)}
    for name in steady:
        with open(os.path.join(directory, name), "wb"):
            pass
    halves = [range(0, count * 3 // 2, 2), range(1, count * 3 // 2, 2)]
    workers = [multiprocessing.Process(target=work, args=(directory, half)) for half in halves]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        names = os.listdir(directory)
        assert len(names) == len(set(names)), "a name was listed twice"
        assert steady <= set(names), f"missing from a listing: {sorted(steady - set(names))[:5]}"
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    names = set(os.listdir(directory)) - steady
    assert names == {f"e{number:05d}" for number in range(count * 3 // 2) if number % 3 != 2}
    assert all(os.path.exists(os.path.join(directory, name)) for name in list(names)[:200])
    print(len(names))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
