"""Many small cached files: the price of an open, where every call reaches the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.environment import Environment
from benchmarks.harness import Goal, Pair, figure
from benchmarks.workloads import open_read_close

FILES: Final = 500
ROUNDS: Final = 20
SIZE: Final = 4096


@figure(
    "open-read-close",
    "open, read 4 KiB, close of cached files",
    unit="files/s",
    against="plain files",
    goal=Goal(12_000, of="value"),
)
@contextmanager
def open_read_close_cached(environment: Environment) -> Iterator[Pair]:
    bucket = environment.bucket()
    client = environment.service.client()
    names = [f"{number:04d}" for number in range(FILES)]
    with environment.folder() as folder:
        for name in names:
            client.put_object(Bucket=bucket, Key=name, Body=b"x" * SIZE)
            (folder / name).write_bytes(b"x" * SIZE)
        with environment.mount(f"s3://{bucket}") as mount:
            ours = [str(mount.directory / name) for name in names]
            plain = [str(folder / name) for name in names]
            yield Pair(lambda: open_read_close(ours, ROUNDS), lambda: open_read_close(plain, ROUNDS))
