"""Threads, pickles and forks."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fsdriver.testing.base import Abilities, noise

WORKERS = 4
WAIT_SECONDS = 60.0
"""A forked child that is not done by then hangs."""


def _digest(data: bytes) -> str:
    """Stands for the data in a queue: its pipe must never fill, or a worker waits for the parent that waits for it."""
    return hashlib.sha256(data).hexdigest()


def _read_all(fs: Any, paths: list[str], results: Any) -> None:
    try:
        results.put({path: _digest(fs.cat_file(path)) for path in paths})
    except BaseException:  # noqa: BLE001 - the parent shows whatever went wrong here
        results.put(traceback.format_exc())


class ProcessTests(Abilities):
    """Part of `fsdriver.testing.filesystem.FilesystemSuite`."""

    def test_pickle_of_the_filesystem(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"1")
        again = pickle.loads(pickle.dumps(fs))
        assert again == fs and hash(again) == hash(fs)
        assert again.cat_file(f"{root}/f") == b"1"

    def test_json_of_the_filesystem(self, fs: Any, root: str) -> None:
        fs.pipe_file(f"{root}/f", b"1")
        assert type(fs).from_json(fs.to_json()).cat_file(f"{root}/f") == b"1"

    def test_pickle_of_an_open_file(self, fs: Any, root: str) -> None:
        self.needs("update")
        fs.pipe_file(f"{root}/f", b"0123456789")
        with fs.open(f"{root}/f", "rb") as file:
            file.seek(3)
            with pickle.loads(pickle.dumps(file)) as again:
                assert again.read(2) == b"34"

    def test_threads_read_one_file(self, fs: Any, root: str) -> None:
        self.needs("handles")
        data = noise((2 << 20) + 9, 7)
        fs.pipe_file(f"{root}/f", data)
        fs.invalidate_cache()

        def part(number: int) -> bool:
            start = number * 100_003
            with fs.open(f"{root}/f", "rb") as file:
                file.seek(start)
                same = file.read(300_000) == data[start : start + 300_000]
            return bool(same and fs.cat_file(f"{root}/f", start, start + 10) == data[start : start + 10])

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(part, range(16)))

    def test_threads_share_one_handle(self, fs: Any, root: str) -> None:
        self.needs("update")
        data = noise(1 << 20, 8)
        fs.pipe_file(f"{root}/f", data)
        with fs.open(f"{root}/f", "rb") as file, ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda _: file.read(4096), range(256)))
        assert sorted(parts) == sorted(data[start : start + 4096] for start in range(0, len(data), 4096))

    def test_threads_write_and_list(self, fs: Any, root: str) -> None:
        def work(number: int) -> None:
            fs.pipe_file(f"{root}/{number % 3}/{number}", str(number).encode())
            assert fs.cat_file(f"{root}/{number % 3}/{number}") == str(number).encode()
            assert any(path.endswith(f"/{number}") for path in fs.ls(f"{root}/{number % 3}", detail=False))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(48)))
        assert len(fs.find(root)) == 48

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_forked_workers_read_cold_files(self, fs: Any, root: str) -> None:
        self.needs("forks", "shares_between_processes")
        files = {f"{root}/{number}": noise(200_000, number) for number in range(WORKERS + 1)}
        fs.pipe(files)
        fs.invalidate_cache()
        paths = sorted(files)
        assert fs.cat_file(paths[0]) == files[paths[0]]
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        workers = [context.Process(target=_read_all, args=(fs, [paths[0], path], results)) for path in paths[1:]]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(WAIT_SECONDS)
        hung = [worker for worker in workers if worker.is_alive()]
        for worker in hung:
            worker.kill()
            worker.join()
        assert not hung, f"{len(hung)} of {WORKERS} forked readers hang"
        for _ in workers:
            result = results.get()
            assert isinstance(result, dict), result
            assert all(_digest(files[path]) == digest for path, digest in result.items())
        assert fs.cat_file(paths[1]) == files[paths[1]]

    def test_spawned_process_sees_the_files(self, fs: Any, root: str) -> None:
        self.needs("shares_between_processes")
        fs.pipe_file(f"{root}/f", b"shared")
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        worker = context.Process(target=_read_all, args=(fs, [f"{root}/f"], results))
        worker.start()
        result = results.get(timeout=WAIT_SECONDS)
        worker.join(WAIT_SECONDS)
        assert result == {f"{root}/f": _digest(b"shared")}
