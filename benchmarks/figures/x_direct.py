"""``direct://``: a large file past the page cache, beside fio on the same disk with the same blocks and depth."""

from __future__ import annotations

import asyncio
import ctypes
import json
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.environment import MIB, Environment, WrongContent
from benchmarks.harness import Figure, Sides, Values, workload
from fsdriver.backends import Backend, open_backend
from fsdriver.backends.aligned import BLOCK, DEPTH
from fsdriver.config import BackendConfig
from fsdriver.runtime import on_loop, run

SIZE: Final = 4096 * MIB
PIECE: Final = 64 * MIB
ASKED: Final = 8 * MIB
"""Bytes of one request of a reader that reads ahead (`fsdriver.cache.readahead`)."""
AT_ONCE: Final = 4
_PAGE: Final = mmap.PAGESIZE


def resident(path: Path) -> float:
    """Part of a file that the page cache has (mincore(2))."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        pages = (ctypes.c_ubyte * -(-len(mapping) // _PAGE))()
        start = ctypes.c_char.from_buffer(mapping)
        where, size = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapping))
        failed = ctypes.CDLL(None).mincore(where, size, pages)
        del start
        if failed:
            raise OSError("mincore failed")
        return sum(page & 1 for page in pages) / len(pages)


def fio(path: Path, work: str) -> float:
    """MB/s of fio, with the sync at the end that a put has, too."""
    done = subprocess.run(
        ["fio", "--name=direct", f"--filename={path}", f"--size={SIZE}", f"--bs={BLOCK}", f"--iodepth={DEPTH}",
         f"--rw={work}", "--direct=1", "--ioengine=libaio", "--end_fsync=1", "--output-format=json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)["jobs"][0]
    # With the end_fsync: its own bandwidth ends before that.
    return SIZE / max(found["job_runtime"], found[work]["runtime"]) / 1e3


async def _get(backend: Backend, key: str, check: Callable[[int, memoryview], None]) -> None:
    await on_loop()
    starts = iter(range(0, SIZE, ASKED))

    async def ask() -> None:
        for start in starts:
            check(start, await backend.get(key, start, start + ASKED))

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


async def _put(backend: Backend, key: str, source: bytes | Path) -> None:
    await on_loop()
    await backend.put(key, source)


@workload(
    Figure("direct.write", "put of 4 GiB from memory; of fio, O_DIRECT", "written MB/s", "direct", "fio", 0.9),
    Figure("direct.read", "get of 4 GiB, 8 MiB a request, 4 at a time; of fio", "read MB/s", "direct", "fio", 0.9),
    Figure("direct.copy", "put of 4 GiB from a file that is not in the page cache", "copied MB/s", "direct"),
    Figure(
        "direct.kept",
        "of what was written and read, left in the page cache",
        "kept",
        "direct",
        limit=0.05,
        at_most=True,
    ),
    Figure("direct.file", "put of 4 GiB from memory by file://; of direct://", "written MB/s", "file", "direct"),
)
@contextmanager
def direct(environment: Environment) -> Iterator[Sides]:
    if shutil.which("fio") is None:
        raise FileNotFoundError("fio is missing: apt install fio")
    piece = os.urandom(PIECE)
    source = piece * (SIZE // PIECE)
    sides = Sides({})

    def check(start: int, data: memoryview) -> None:
        at = start % PIECE
        if data[:_PAGE] != piece[at : at + _PAGE] or len(data) != ASKED:
            raise WrongContent(f"at {start}")

    with environment.folder() as folder:

        def peer() -> Values:
            path = folder / "fio"
            path.unlink(missing_ok=True)
            values = {"written MB/s": fio(path, "write"), "read MB/s": fio(path, "read")}
            path.unlink()
            return values

        def put(scheme: str) -> tuple[Backend, str, float]:
            backend, prefix = open_backend("bench", BackendConfig(url=f"{scheme}://{folder}", timeout=600.0))
            began = time.perf_counter()
            run(_put(backend, f"{prefix}/file", source))
            return backend, prefix, SIZE / (time.perf_counter() - began) / 1e6

        def ours() -> Values:
            backend, prefix, written = put("direct")
            began = time.perf_counter()
            run(_get(backend, f"{prefix}/file", check))
            read = SIZE / (time.perf_counter() - began) / 1e6
            kept = resident(folder / "file")
            began = time.perf_counter()
            run(_put(backend, f"{prefix}/copy", folder / "file"))
            copied = SIZE / (time.perf_counter() - began) / 1e6
            kept = max(kept, resident(folder / "file"), resident(folder / "copy"))
            _end(backend, folder)
            return {"written MB/s": written, "read MB/s": read, "copied MB/s": copied, "kept": kept}

        def buffered() -> Values:
            backend, _, written = put("file")
            sides.facts["file"] = {"kept": resident(folder / "file")}
            _end(backend, folder)
            return {"written MB/s": written}

        sides.runs = {"fio": peer, "direct": ours, "file": buffered}
        yield sides


def _end(backend: Backend, folder: Path) -> None:
    async def close() -> None:
        await on_loop()
        await backend.close()

    run(close())
    for path in folder.iterdir():
        path.unlink()
