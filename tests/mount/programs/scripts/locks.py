"""Locks held here and tried by another process: ``locks.py`` prints what each attempt says."""

# ruff: noqa: T201  what is printed is what is compared

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

ATTEMPT = """
import errno, fcntl, os, sys
kind, mode, start, length = sys.argv[1], getattr(fcntl, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
file = os.open("locked", os.O_RDWR)
try:
    if kind == "flock":
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    else:
        fcntl.lockf(file, mode | fcntl.LOCK_NB, length, start)
    print("taken")
except OSError as error:
    print("refused" if error.errno in (errno.EAGAIN, errno.EACCES) else errno.errorcode[error.errno])
"""
WAITER = """
import fcntl, os
file = os.open("locked", os.O_RDWR)
print("waiting", flush=True)
fcntl.flock(file, fcntl.LOCK_EX)
print(os.read(file, 100).decode(), flush=True)
"""


def attempt(kind: str, mode: str, start: int = 0, length: int = 0) -> str:
    """What another process gets."""
    command = [sys.executable, "-c", ATTEMPT, kind, mode, str(start), str(length)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


with open("locked", "wb") as new:
    new.write(bytes(1000))
held = os.open("locked", os.O_RDWR)
fcntl.flock(held, fcntl.LOCK_SH)
print("flock shared:", attempt("flock", "LOCK_SH"), attempt("flock", "LOCK_EX"))
fcntl.flock(held, fcntl.LOCK_EX)
print("flock exclusive:", attempt("flock", "LOCK_SH"), attempt("flock", "LOCK_EX"))
fcntl.flock(held, fcntl.LOCK_UN)
print("flock free:", attempt("flock", "LOCK_EX"))
fcntl.lockf(held, fcntl.LOCK_EX, 100, 200)
print(
    "range:",
    attempt("lockf", "LOCK_EX", 0, 100),
    attempt("lockf", "LOCK_SH", 250, 10),
    attempt("lockf", "LOCK_EX", 300, 50),
)
fcntl.lockf(held, fcntl.LOCK_UN, 100, 200)
print("range free:", attempt("lockf", "LOCK_EX", 0, 1000))
fcntl.flock(held, fcntl.LOCK_EX)
waiter = subprocess.Popen([sys.executable, "-c", WAITER], stdout=subprocess.PIPE, text=True)
assert waiter.stdout is not None
waiter.stdout.readline()
os.pwrite(held, b"written before the lock was let go", 0)
os.truncate(held, 34)
os.close(held)
print("waiter:", waiter.communicate(timeout=60)[0].strip())
